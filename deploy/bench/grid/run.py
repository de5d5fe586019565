"""The command: cells, episodes, latencies, rows and pictures."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from data.build import build
from data.results import print_table, write_results
from deploy.bench.grid.cells import Cell, Task, cells_of, tasks_of
from deploy.bench.grid.episodes import Episode, run_grid
from deploy.bench.grid.latency import latency_rows
from deploy.bench.grid.plot import draw
from deploy.bench.grid.rows import grid_rows
from deploy.commands.simulation import seeds_of
from policy.checkpoint import load_policy

SHOWN = ("success", "success_difference", "nfe_per_action", "reaction_ticks", "speedup")

LOG = logging.getLogger(__name__)


def run(config: dict[str, Any]) -> int:
    """Run what is missing, write `results.json` and a picture per task into `out`."""
    grid, out = config["grid"], Path(config["out"])
    seeds, cells = seeds_of(config), cells_of(grid)
    wanted = {cell.task for cell in cells}
    tasks = {name: task for name, task in tasks_of(grid).items() if name in wanted}
    check_cells(tasks, cells)
    executor = build(config["executor"])
    episodes = run_grid(tasks, cells, seeds, out / "episodes.jsonl", config["workers"], executor)
    rows = grid_rows(tasks, by_cell(cells, episodes), _rates(tasks))
    if config["rounds"]:
        rows += latency_rows(tasks, cells, config["rounds"], config["threads"], seeds[0])
    write_results(out / "results.json", "bench grid", rows, seeds)
    print_table([row for row in rows if row.name in SHOWN])
    for path in draw(rows, out):
        LOG.info("picture: %s", path)
    return 0


def by_cell(cells: Sequence[Cell], episodes: Sequence[Episode]) -> dict[Cell, list[Episode]]:
    """The episodes, in their order, under their cells."""
    found: dict[str, list[Episode]] = {cell.key: [] for cell in cells}
    for episode in episodes:
        found[episode.cell].append(episode)
    return {cell: found[cell.key] for cell in cells}


def check_cells(tasks: Mapping[str, Task], cells: Sequence[Cell]) -> None:
    """Build every controller once: what does not fit fails now and not in an hour."""
    paths = {cell: tasks[cell.task].checkpoint_of(cell.scheme) for cell in cells}
    policies = {path: load_policy(path) for path in set(paths.values())}
    for cell, path in paths.items():
        policy = policies[path]
        if cell.exec_horizon + cell.delay > policy.horizons.pred:
            raise ValueError(
                f"{cell.key}: exec horizon and delay together exceed the chunk of "
                f"{policy.horizons.pred} actions; leave the cell out of the grid."
            )
        with torch.inference_mode():
            build(cell.controller, policy=policy)


def _rates(tasks: Mapping[str, Task]) -> dict[str, float]:
    return {name: load_policy(task.checkpoint).spec.rate_hz for name, task in tasks.items()}
