"""Why `prise calibrate` chose its levels, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from policy.level_grid import Choice, GridSettings, Shift


def draw(
    shifts: Mapping[int, Shift], choices: Sequence[Choice], settings: GridSettings, path: Path
) -> Path:
    """Contraction against level, errors of shifted plans, chosen levels; into a PNG."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    horizon, shift = next(iter(shifts.items()))
    _contraction(left, horizon, shift, [c for c in choices if c.exec_horizon == horizon], settings)
    _errors(middle, shifts)
    _chosen(right, choices)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def _contraction(
    axes: Axes, horizon: int, shift: Shift, choices: Sequence[Choice], settings: GridSettings
) -> None:
    allowed = settings.allowed(horizon)
    for index, choice in enumerate(choices):
        colour, figures = f"C{index}", shift.figures[choice.nfe]
        levels = [one.level for one in figures]
        label = f"{choice.nfe} NFE"
        axes.plot(levels, [one.contraction for one in figures], colour, label=label)
        axes.plot(levels, [one.gaussian for one in figures], colour, linestyle=":", linewidth=1)
        axes.axvline(choice.level, color=colour, linewidth=0.6)
    axes.axhline(allowed, color="black", linewidth=1, linestyle="--")
    axes.text(
        0.02, allowed, f" allowed: {allowed:.2f}", va="bottom", transform=axes.get_yaxis_transform()
    )
    axes.set_xlabel("start level")
    axes.set_ylabel("left of a disturbance of the old plan (90 %)")
    axes.set_title(f"contraction, exec horizon {horizon} (dotted: Gaussian)")
    axes.set_ylim(bottom=0)
    axes.legend()


def _errors(axes: Axes, shifts: Mapping[int, Shift]) -> None:
    for horizon, shift in shifts.items():
        error = np.sort(shift.error.numpy())
        share = (np.arange(len(error)) + 0.5) / len(error)
        axes.plot(error, share, label=f"exec horizon {horizon}")
    spread = next(iter(shifts.values())).spread
    axes.axvline(spread, color="black", linewidth=1, linestyle="--", label="spread of samples")
    axes.axhline(0.95, color="grey", linewidth=0.6)
    axes.set_xscale("log")
    axes.set_xlabel("error of the shifted plan (actions fill [-1, 1])")
    axes.set_ylabel("share of moments below")
    axes.set_title("shift error")
    axes.legend()


def _chosen(axes: Axes, choices: Sequence[Choice]) -> None:
    for nfe in sorted({choice.nfe for choice in choices}):
        of_budget = [choice for choice in choices if choice.nfe == nfe]
        horizons = [choice.exec_horizon for choice in of_budget]
        axes.plot(horizons, [choice.level for choice in of_budget], "o-", label=f"{nfe} NFE")
    axes.set_xscale("log", base=2)
    axes.set_xlabel("exec horizon [ticks]")
    axes.set_ylabel("chosen start level")
    axes.set_ylim(0, 1.05)
    axes.set_title("chosen level")
    axes.legend()
