"""What a plan of each scheme costs, measured side by side in one process."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from data.build import build
from data.results import Row
from data.spec import Obs
from deploy.bench.grid.cells import Cell, Task
from deploy.commands.simulation import matching_env, percentile_rows
from deploy.controllers.base import Controller
from envs.history import ObsHistory
from policy.allocator import keep_freed_memory
from policy.checkpoint import load_policy
from policy.diffusion_policy import DiffusionPolicy

AGAINST = (("cold_ddpm", 100), ("cold_ddim", 10))
WARM_UP = 5
OBSERVED = 20  # ticks of an episode in which nothing moves
RESAMPLES = 1000

Seconds = NDArray[np.float64]


def latency_rows(
    tasks: Mapping[str, Task], cells: Sequence[Cell], rounds: int, threads: int, seed: int
) -> list[Row]:
    """Percentiles of a plan's time [ms], and how many times faster than the cold plans it is.

    One cell of each scheme and number of evaluations: those without delay that plan most often.
    """
    keep_freed_memory()
    torch.set_num_threads(threads)
    rows = []
    for name, task in tasks.items():
        chosen: dict[tuple[str, int], Cell] = {}
        for cell in sorted(cells, key=lambda c: (c.delay, c.exec_horizon)):
            if cell.task == name and task.against is None:
                chosen.setdefault((cell.scheme, cell.nfe), cell)
        if chosen:
            rows += _task_rows(task, chosen, rounds, seed)
    return rows


def _task_rows(
    task: Task, chosen: Mapping[tuple[str, int], Cell], rounds: int, seed: int
) -> list[Row]:
    windows = observations(task, load_policy(task.checkpoint), seed)
    seconds = _interleaved(task, chosen, windows, rounds)
    rows = []
    for key in chosen:
        context: dict[str, str | int] = {
            "task": task.name,
            "controller": key[0],
            "nfe": key[1],
            "wire": "bench",
        }
        rows += percentile_rows("plan_ms", 1000 * seconds[key], "ms", context)
        for against in AGAINST:
            if against in seconds and against != key:
                name = f"{against[0]}_{against[1]}"
                rows.append(_speedup(seconds[against], seconds[key], {**context, "against": name}))
    return rows


def observations(task: Task, policy: DiffusionPolicy, seed: int) -> list[Obs]:
    """Windowed observations of the first ticks of an episode."""
    env, history = matching_env(task.env, policy.spec)(), ObsHistory(policy.spec, policy.horizons)
    obs, _ = env.reset(seed=seed)
    windows = []
    for _ in range(OBSERVED):
        history.push({key: obs[key] for key in policy.spec.obs})
        windows.append(history.windowed())
        obs, *_ = env.step(policy.spec.action.still.astype(np.float32))
    env.close()
    return windows


def _interleaved(
    task: Task,
    chosen: Mapping[tuple[str, int], Cell],
    windows: Sequence[Obs],
    rounds: int,
) -> dict[tuple[str, int], Seconds]:
    """Seconds of each scheme's plans; all take turns, each round in another order."""
    made: dict[tuple[str, int], Controller] = {
        key: build(cell.controller, policy=load_policy(task.checkpoint_of(cell.scheme)))
        for key, cell in chosen.items()
    }
    spans = {key: cell.exec_horizon / made[key].spec.rate_hz for key, cell in chosen.items()}
    taken: dict[tuple[str, int], list[float]] = {key: [] for key in made}
    keys = list(made)
    for number in tqdm(range(WARM_UP + rounds), desc="plans", unit="round", disable=None):
        first = number % len(keys)
        for key in keys[first:] + keys[:first]:
            started = time.perf_counter()
            made[key].update(windows[number % len(windows)], number * spans[key])
            if number >= WARM_UP:
                taken[key].append(time.perf_counter() - started)
    return {key: np.array(seconds) for key, seconds in taken.items()}


def _speedup(slow: Seconds, fast: Seconds, context: Mapping[str, str | int]) -> Row:
    """Ratio of medians with a bootstrapped interval over the rounds."""
    generator = np.random.default_rng(0)
    picks = generator.integers(len(slow), size=(RESAMPLES, len(slow)))
    ratios = np.median(slow[picks], axis=1) / np.median(fast[picks], axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    value = float(np.median(slow) / np.median(fast))
    return Row("speedup", value, float(low), float(high), len(slow), "", context)
