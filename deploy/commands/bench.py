"""`prise bench WHAT`: measurements that are not evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.build import build
from deploy.commands.simulation import seeds_of

# What -> function of the command's config, which gives the exit status.
BENCHES = {
    "acting": "deploy.bench.acting.run",
    "deadline": "deploy.bench.deadline.run",
    "gates": "deploy.commands.bench.gates",
    "engine": "deploy.bench.engine.run",
    "grid": "deploy.bench.grid.run.run",
    "overhead": "deploy.bench.overhead.run",
    "tick": "deploy.bench.tick.run",
    "train": "deploy.bench.train_step.run",
    "scale": "deploy.bench.scale.run",
}


def run(config: dict[str, Any]) -> int:
    """Hand over to the measurement called `what`."""
    what = config["what"]
    if what not in BENCHES:
        raise ValueError(f"bench {what!r} is unknown; known: {', '.join(BENCHES)}.")
    measure = build({"_target_": BENCHES[what], "_partial_": True})
    status: int = measure(config)
    return status


def gates(config: dict[str, Any]) -> int:
    """What a policy without senses, or one that only sees, can reach in the task of `env`."""
    # Every task has its gates beside it.
    task = config["choices"]["env"].partition("/")[0]  # metaworld/NAME
    target = f"envs.{task}.gates.run"
    measure = build({"_target_": target, "_partial_": True})
    out, episodes = Path(config["out"]), len(seeds_of(config))
    executor = build(config["executor"])
    measure(build(config["env"]), out, episodes, config["seed0"], config["workers"], executor)
    return 0
