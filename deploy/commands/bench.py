"""`prise bench WHAT`: measurements that are not evaluations."""

from __future__ import annotations

from typing import Any

from data.build import build

BENCHES = ("gates", "tick", "train")


def run(config: dict[str, Any]) -> int:
    """Hand over to the measurement called `what`."""
    what = config["what"]
    if what == "gates":
        return _gates(config)
    if what == "tick":
        from deploy.bench import tick

        return tick.run(config)
    if what == "train":
        from deploy.bench import train_step

        return train_step.run(config)
    raise ValueError(f"bench {what!r} is unknown; known: {', '.join(BENCHES)}.")


def _gates(config: dict[str, Any]) -> int:
    # Every task has its gates beside it.
    target = f"envs.{config['choices']['env']}.gates.run"
    measure = build({"_target_": target, "_partial_": True})
    measure(out=config["out"], episodes=config["episodes"], workers=config["workers"])
    return 0
