"""Figures of a grid: rates with intervals, paired differences, costs, and how it moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data.results import Row, paired_difference, success_row
from deploy.bench.grid.cells import Cell, Task
from deploy.bench.grid.episodes import Episode
from deploy.commands.simulation import percentile_rows

BASELINE = ("cold_ddpm", 100)  # scheme and evaluations that the others are compared with
REACTED = 0.63  # of the largest change: one time constant of a first-order lag
REACTION_WINDOW = 20  # [ticks] in which the change of actions is looked for

Episodes = Mapping[Cell, Sequence[Episode]]


def grid_rows(
    tasks: Mapping[str, Task], episodes: Episodes, rate_hz: Mapping[str, float]
) -> list[Row]:
    """All rows of all cells; `rate_hz` is the policy's rate in each task."""
    rows: list[Row] = []
    for cell, done in episodes.items():
        rows += _outcome_rows(cell, done)
        rows += _difference_rows(cell, episodes)
        rows += _cost_rows(cell, done, 1000 / rate_hz[cell.task])
        rows += _motion_rows(cell, done)
        rows += _reaction_rows(cell, tasks, episodes)
    return rows


def _outcome_rows(cell: Cell, done: Sequence[Episode]) -> list[Row]:
    return [success_row("success", [e.success for e in done], context=cell.context)]


def _difference_rows(cell: Cell, episodes: Episodes) -> list[Row]:
    """Against the baseline at the same delay, and against the same scheme without delay."""
    rows = []
    for against, other in _others(cell, episodes):
        mine, theirs = ([e.success for e in episodes[c]] for c in (cell, other))
        difference, low, high = paired_difference(mine, theirs)
        context = {**cell.context, "against": against}
        rows.append(Row("success_difference", difference, low, high, len(mine), "", context))
    return rows


def _others(cell: Cell, episodes: Episodes) -> list[tuple[str, Cell]]:
    found = []
    for other in episodes:
        if other == cell or other.task != cell.task:
            continue
        is_baseline = (other.scheme, other.nfe) == BASELINE and other.delay == cell.delay
        if is_baseline and other.scheme != cell.scheme:
            found.append((f"{other.scheme}_{other.nfe}_exec{other.exec_horizon}", other))
        without_delay = {**cell.context, "delay": 0}
        if cell.delay and other.context == without_delay:
            found.append(("no_delay", other))
    return found


def _cost_rows(cell: Cell, done: Sequence[Episode], tick_ms: float) -> list[Row]:
    ticks = sum(e.ticks for e in done)
    plans = int(sum(e.plans for e in done))
    nfe = sum(e.nfe for e in done)
    times = np.concatenate([e.tick_ms for e in done])
    rows = [
        Row("nfe_per_action", nfe / ticks, n=ticks, context=cell.context),
        Row("encoder_calls_per_action", plans / ticks, n=ticks, context=cell.context),
        *percentile_rows("tick_ms", times, "ms", cell.context),
    ]
    if times.size:
        rows += [
            Row("nfe_per_plan", nfe / plans, n=plans, context=cell.context),
            Row("tick_ms_max", float(times.max()), n=plans, unit="ms", context=cell.context),
            Row("deadline_misses", int((times > tick_ms).sum()), n=plans, context=cell.context),
        ]
    return rows


def _motion_rows(cell: Cell, done: Sequence[Episode]) -> list[Row]:
    """Means over the episodes that have the figure, with a normal 95 % interval."""
    rows = []
    for source in ("motion", "metrics"):
        names = sorted({name for e in done for name in getattr(e, source)})
        for name in names:
            values = [getattr(e, source)[name] for e in done if name in getattr(e, source)]
            rows.append(_mean_row(name, values, cell.context))
    return rows


def _mean_row(name: str, values: Sequence[float], context: Mapping[str, Any]) -> Row:
    mean = float(np.mean(values))
    half = 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return Row(name, mean, mean - half, mean + half, len(values), context=context)


def _reaction_rows(cell: Cell, tasks: Mapping[str, Task], episodes: Episodes) -> list[Row]:
    against = tasks[cell.task].against
    if against is None:
        return []
    plain = next((c for c in episodes if c.context == {**cell.context, "task": against}), None)
    if plain is None:
        return []
    at = int(tasks[cell.task].env["kwargs"]["jump_at"])
    pairs = zip(episodes[cell], episodes[plain], strict=True)
    ticks = [reaction_ticks(a.actions, b.actions, at) for a, b in pairs]
    known = [t for t in ticks if t is not None]
    rows = [success_row("reacted", [t is not None for t in ticks], context=cell.context)]
    return [*rows, _mean_row("reaction_ticks", known, cell.context)] if known else rows


def reaction_ticks(
    disturbed: Sequence[Sequence[float]], plain: Sequence[Sequence[float]], at: int
) -> int | None:
    """Ticks from a disturbance first observed at tick `at` until the actions have changed.

    Both episodes (ticks, A) have the same seed. The change of an action is its distance from the
    undisturbed one's; reaction is its first tick at 63 % of its largest within the window. None
    where nothing changed, or an episode was over before.
    """
    count = min(len(disturbed), len(plain), at + REACTION_WINDOW)
    if count <= at:
        return None
    change = np.linalg.norm(np.array(disturbed[at:count]) - np.array(plain[at:count]), axis=1)
    if change.max() < 1e-6:
        return None
    return int(np.argmax(change >= REACTED * change.max()))
