"""Pictures of a grid: success against what it costs, and against delay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from data.results import Row

Point = tuple[float, Row]


def draw(rows: Sequence[Row], out: Path) -> list[Path]:
    """One PNG per task."""
    tasks = sorted({str(row.context["task"]) for row in rows if row.name == "success"})
    of_task = {task: [r for r in rows if r.context.get("task") == task] for task in tasks}
    return [_draw_task(task, of_task[task], out) for task in tasks]


def _draw_task(task: str, rows: Sequence[Row], out: Path) -> Path:
    figure = Figure(figsize=(11.0, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    cost = {_place(r): r.value for r in rows if r.name == "nfe_per_action"}
    success = [r for r in rows if r.name == "success"]
    lowest = min(r.low or 0.0 for r in success)
    for scheme in sorted({str(r.context["controller"]) for r in success}):
        mine = [r for r in success if r.context["controller"] == scheme]
        _line(left, scheme, [(cost[_place(r)], r) for r in mine if r.context["delay"] == 0])
        _line(right, scheme, _best_by_delay(mine))
    left.set(xscale="symlog", xlabel="network evaluations per executed action", title="no delay")
    right.set(xlabel="delay [ticks]", title="best setting of each scheme at each delay")
    for axes in (left, right):
        axes.set(ylabel="success", ylim=(lowest - 0.05, 1.02))
        axes.legend(fontsize=7)
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(task)
    path = out / f"{task.replace('/', '_')}.png"
    figure.savefig(path, dpi=110)
    return path


def _place(row: Row) -> tuple[Any, ...]:
    axes = ("controller", "exec_horizon", "nfe", "delay")
    return tuple(row.context[axis] for axis in axes)


def _best_by_delay(rows: Sequence[Row]) -> list[Point]:
    best: dict[float, Row] = {}
    for row in rows:
        delay = float(row.context["delay"] or 0)
        if delay not in best or row.value > best[delay].value:
            best[delay] = row
    return list(best.items())


def _line(axes: Any, label: str, points: Sequence[Point]) -> None:
    points = sorted(points, key=lambda point: point[0])
    values = [row.value for _, row in points]
    below = [row.value - (row.low or 0) for _, row in points]
    above = [(row.high or 1) - row.value for _, row in points]
    xs = [x for x, _ in points]
    axes.errorbar(xs, values, [below, above], marker="o", ms=4, lw=1, capsize=2, label=label)
