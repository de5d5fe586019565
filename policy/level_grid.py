"""The measurements of `start_level.py` over a grid of exec horizons, budgets and levels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from policy.moments import Moments
from policy.schedule import Schedule
from policy.start_level import (
    Mode,
    Pairs,
    Solver,
    continuous_groups,
    contraction,
    distance,
    flip_rate,
    gaussian_contraction,
    nearest_mode,
    shift_error,
    shifted,
    strangeness,
)

FORGOTTEN = 0.05  # what is left of an old plan that nobody would notice
QUANTILES = (*(k / 100 for k in range(5, 100, 5)), 0.98, 0.99, 0.995, 1.0)


@dataclass(frozen=True)
class GridSettings:
    """What is measured, and what is wanted of a level.

    Attributes:
        exec_horizons: Ticks from one plan to the next.
        nfes: Network evaluations of a plan.
        levels: Tried in this order, rising; 1 forgets everything and always fits.
        samples: Cold samples a moment.
        cold_steps: Network evaluations of each.
        reaction_ticks: Time constant [ticks] with which a plan is to follow the observations; of an
            old plan exp(-exec_horizon / reaction_ticks) may be left.
        cover: Noise wanted at the level, as a multiple of the error of the old plan.
    """

    exec_horizons: tuple[int, ...] = (1, 2, 4, 8)
    nfes: tuple[int, ...] = (1, 2, 3, 5)
    levels: tuple[float, ...] = tuple(k / 20 for k in range(2, 21))
    samples: int = 16
    cold_steps: int = 20
    reaction_ticks: float = 0.33
    cover: float = 1.0

    def __post_init__(self) -> None:
        for name in ("exec_horizons", "nfes", "levels"):
            object.__setattr__(self, name, tuple(sorted(getattr(self, name))))
            if not getattr(self, name) or getattr(self, name)[0] <= 0:
                raise ValueError(f"{name} must be numbers above 0, got {getattr(self, name)}.")
        if self.levels[-1] != 1:
            raise ValueError(f"levels must end with 1, got {self.levels}.")
        if self.samples < 4 or self.cold_steps < 1:
            raise ValueError(
                f"samples must be at least 4 and cold_steps at least 1, got {self.samples} and "
                f"{self.cold_steps}."
            )
        if not (self.reaction_ticks > 0 and self.cover > 0):
            raise ValueError(
                f"reaction_ticks and cover must be above 0, got {self.reaction_ticks} and "
                f"{self.cover}."
            )

    def allowed(self, exec_horizon: int) -> float:
        """The part of an old plan that may be left after one update."""
        return max(FORGOTTEN, math.exp(-exec_horizon / self.reaction_ticks))


@dataclass(frozen=True)
class LevelFigures:
    """What was measured at one level."""

    level: float
    contraction: float  # 90 % of the disturbances shrink to less
    gaussian: float  # the closed form for the measured spread
    strangeness: float  # median; 1: as a cold sample
    flip_rate: float | None


@dataclass(frozen=True)
class Choice:
    """A start level, the levels that each condition asks for, and the condition that decided."""

    exec_horizon: int
    nfe: int
    level: float
    cover_level: float
    contraction_level: float
    flip_level: float | None
    because: str


@dataclass(frozen=True)
class Measured:
    """All that a calibration needs: `QUANTILES` of residuals by level and of the wrench's rate."""

    shifts: dict[int, Shift]
    choices: tuple[Choice, ...]
    residuals: dict[str, list[float]]
    contact: list[float] | None


@dataclass(frozen=True)
class Shift:
    """Old plans of one exec horizon: their errors (M,), and figures by budget."""

    error: Tensor
    two_modes: float  # share of the moments at which the samples fall into two groups
    spread: float
    figures: dict[int, list[LevelFigures]]


def budget_levels(settings: GridSettings, nfe: int, grid: int) -> list[float]:
    """Those levels of the settings from which `nfe` steps can be taken on the schedule's grid."""
    return [level for level in settings.levels if nfe <= round(level * grid)]


def count_steps(settings: GridSettings, schedule: Schedule) -> int:
    """How often `measure` calls its `progress`."""
    grid = schedule.num_levels
    cells = sum(len(budget_levels(settings, nfe, grid)) for nfe in settings.nfes)
    return len(settings.exec_horizons) * cells + len(budget_levels(settings, 1, grid))


def measure(
    solver: Solver,
    moments: Moments,
    settings: GridSettings,
    seed: int = 0,
    progress: Callable[[], object] = lambda: None,
) -> Measured:
    """Everything on the grid, and what to make of it."""
    contexts, schedule = moments.contexts, solver.policy.schedule
    generator = torch.Generator(contexts.device).manual_seed(seed)
    repeated = contexts[0].repeat_interleave(settings.samples, 0)
    cold = solver.cold(repeated, settings.cold_steps, generator)
    cold = cold.view(-1, settings.samples, *cold.shape[1:])  # (M, S, Tp, A)
    shifts = {
        horizon: measure_shift(solver, contexts, cold, horizon, settings, progress, seed + 1)
        for horizon in settings.exec_horizons
    }
    by_level = {}
    for level in budget_levels(settings, 1, schedule.num_levels):
        seen = residuals(solver, contexts, level, settings.cold_steps, generator)
        by_level[f"{level:g}"] = quantiles(seen)
        progress()
    choices = [
        choose(shift, horizon, nfe, settings, schedule)
        for horizon, shift in shifts.items()
        for nfe in settings.nfes
    ]
    rates = moments.wrench_rates
    contact = None if rates is None else quantiles(rates)
    return Measured(shifts, tuple(choices), by_level, contact)


def measure_shift(
    solver: Solver,
    contexts: Tensor,
    cold: Tensor,
    exec_horizon: int,
    settings: GridSettings,
    progress: Callable[[], object] = lambda: None,
    seed: int = 0,
) -> Shift:
    """All levels and budgets at one exec horizon; `progress` is called once for each.

    Args:
        solver: How plans are made.
        contexts: (H + 1, M, N, D), index k is k ticks ago; H at least the exec horizon.
        cold: Samples (M, S, Tp, A) under contexts[0].
        exec_horizon: Ticks from the old plan to now.
        settings: The grid.
        progress: Called after each level of each budget.
        seed: Of the old plans and of the noise.
    """
    generator = torch.Generator(contexts.device).manual_seed(seed)
    old = solver.cold(contexts[exec_horizon], settings.cold_steps, generator)
    pairs = Pairs(contexts[0], shifted(old, exec_horizon), cold, exec_horizon)
    mode = nearest_mode(pairs)
    groups = continuous_groups(solver.policy.spec.action)
    spread = float(distance(mode.spread, torch.zeros_like(mode.spread), groups).median())
    figures: dict[int, list[LevelFigures]] = {}
    for nfe in settings.nfes:
        figures[nfe] = []
        for level in budget_levels(settings, nfe, solver.policy.schedule.num_levels):
            figures[nfe].append(_figures(solver, pairs, mode, spread, level, nfe, seed))
            progress()
    error = shift_error(pairs, mode, groups)
    return Shift(error, float(mode.two.float().mean()), spread, figures)


def _figures(
    solver: Solver, pairs: Pairs, mode: Mode, spread: float, level: float, nfe: int, seed: int
) -> LevelFigures:
    policy = solver.policy
    left, out = contraction(solver, pairs, mode.mean, level, nfe, seed)
    strange = strangeness(out, pairs, continuous_groups(policy.spec.action))
    return LevelFigures(
        level,
        float(left.quantile(0.9)),
        gaussian_contraction(spread, level, nfe, policy.schedule, solver.warm_start),
        float(strange.median()),
        flip_rate(out, pairs, policy.spec.action.discrete),
    )


def choose(
    shift: Shift, exec_horizon: int, nfe: int, settings: GridSettings, schedule: Schedule
) -> Choice:
    """The lowest level that covers the error, contracts as wanted and lets discrete actions flip.

    A condition must also hold at every higher level; the highest one, 1, is taken where none does.
    """
    figures = shift.figures[nfe]
    levels = [one.level for one in figures]
    error, allowed = float(shift.error.quantile(0.95)), settings.allowed(exec_horizon)
    covers = [
        schedule.sigma(level) >= settings.cover * error * schedule.alpha(level) for level in levels
    ]
    asked = {
        "noise covers the error": _first(levels, covers),
        "old plan forgotten": _first(levels, [one.contraction <= allowed for one in figures]),
    }
    flips = [one.flip_rate for one in figures]
    if None not in flips:
        rates = [rate >= 0.5 for rate in flips if rate is not None]
        asked["discrete actions flip"] = _first(levels, rates)
    because = max(asked, key=lambda condition: asked[condition])
    cover_level, contraction_level, *flip_level = asked.values()
    return Choice(
        exec_horizon,
        nfe,
        asked[because],
        cover_level,
        contraction_level,
        flip_level[0] if flip_level else None,
        because,
    )


def _first(levels: Sequence[float], holds: Sequence[bool]) -> float:
    """The lowest level from which on it holds; the last one if it holds nowhere."""
    start = len(levels)
    while start > 0 and holds[start - 1]:
        start -= 1
    return levels[min(start, len(levels) - 1)]


def residuals(
    solver: Solver,
    contexts: Tensor,
    level: float,
    cold_steps: int,
    generator: Generator,
) -> Tensor:
    """Distances of warm starts to what one evaluation makes of them, (ticks * M,).

    A chain of one evaluation a tick follows the recorded observations, contexts (H + 1, M, N, D),
    index k is k ticks ago, so its plans are as old and as smooth as those of the controller. Its
    first step, from a cold plan, is left out.
    """
    plan = solver.cold(contexts[-1], cold_steps, generator)
    seen = []
    for context in contexts[:-1].flip(0):
        guess = shifted(plan, 1)
        plan = solver.warm(context, guess, level, 1, generator)
        seen.append(residual(plan, guess, continuous_groups(solver.policy.spec.action)))
    return torch.cat(seen[1:] or seen)


def residual(estimate: Tensor, guess: Tensor, groups: dict[str, list[int]]) -> Tensor:
    """How far one evaluation moved the guess (B, Tp, A), without the action it only repeated."""
    overlap = max(1, guess.shape[1] - 1)
    return distance(estimate[:, :overlap], guess[:, :overlap], groups)


def quantiles(values: Tensor) -> list[float]:
    """`QUANTILES` of the values."""
    found: list[float] = values.double().quantile(torch.tensor(QUANTILES).double()).tolist()
    return found
