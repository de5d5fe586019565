"""`prise eval`: a checkpoint under a controller in lock-step simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.build import build
from data.results import print_table, write_results
from deploy.agent import AgentFactory
from deploy.commands.episodes import (
    EPISODES_CSV,
    check_paired,
    difference_row,
    read_episodes,
    write_episodes,
)
from deploy.commands.simulation import (
    check_fits,
    matching_env,
    result_rows,
    seeds_of,
    senses,
)
from envs.evaluate import evaluate


def run(config: dict[str, Any]) -> int:
    """Run the episodes, write `results.json` and `episodes.csv` into `out`, print the table."""
    checkpoint, controller = Path(config["checkpoint"]), config["controller"]
    seeds = seeds_of(config)
    agent = AgentFactory(
        checkpoint,
        controller,
        config["threads"],
        config["delay"],
        config["backend"],
        config["seam"],
    )
    # Built here too: a setting that does not fit fails now and not in a worker.
    spec = agent().spec
    env = matching_env(config["env"], spec)
    check_fits(env, spec)
    context = {
        "task": spec.task,
        "split": env.kwargs.get("split"),
        "obs": senses(spec),
        "controller": config["choices"]["controller"],
        "backend": config["choices"]["backend"],
        "delay": config["delay"],
        "wire": "lockstep",
    }
    other = None if config["against"] is None else read_episodes(Path(str(config["against"])))
    if other is not None:
        check_paired(other, context, seeds)
    executor = build(config["executor"])
    results = evaluate(env, agent, seeds, workers=config["workers"], executor=executor)
    rows = result_rows(results, context)
    if other is not None:
        rows.append(difference_row(results, other, context))
    path = Path(config["out"]) / "results.json"
    write_episodes(path.with_name(EPISODES_CSV), results, context)
    write_results(path, "eval", rows, seeds)
    print_table(rows)
    print(f"written to {path}")
    return 0
