"""What all sampling schemes share: the protocol, the list of levels, the process' variance."""

from __future__ import annotations

import functools
from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor

from policy.schedule import Schedule


class Evaluation(NamedTuple):
    """A network evaluation of the past: what multistep schemes look back at."""

    x0: Tensor  # (B, Tp, A)
    level: float


class Sampler(Protocol):
    """One step from `level` to `level_next` < `level`; remembers nothing between steps."""

    def step(
        self,
        x: Tensor,
        x0: Tensor,
        level: float,
        level_next: float,
        schedule: Schedule,
        history: Evaluation | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """The iterate at `level_next`; `x0` is the estimate at (`x`, `level`).

        `history` is the evaluation of the step before, None at the first step.
        """
        ...


def level_list(num_steps: int, start_level: float = 1.0, *, schedule: Schedule) -> Tensor:
    """Levels (num_steps + 1,) from `start_level` down to 0, float64, equally spaced.

    They are rounded to the schedule's grid: the network has been trained nowhere else.
    """
    values = level_values(num_steps, start_level, schedule.num_levels)
    return torch.tensor(values, dtype=torch.float64)


@functools.lru_cache(maxsize=64)
def level_values(num_steps: int, start_level: float, grid: int) -> tuple[float, ...]:
    """The numbers of `level_list` on a grid of so many levels; kept, as ticks ask for the same."""
    if not 0 < start_level <= 1 or not 1 <= num_steps <= round(start_level * grid):
        raise ValueError(
            f"{num_steps} steps from level {start_level} wanted; the level must be in (0, 1] and "
            f"the steps between 1 and level * {grid} levels."
        )
    ticks = torch.linspace(round(start_level * grid), 0, num_steps + 1, dtype=torch.float64)
    return tuple((ticks.round() / grid).tolist())


def posterior_variance(level: float, level_next: float, schedule: Schedule) -> float:
    """Variance of x at `level_next` given x at `level` and x0, for any jump.

    sigma_n^2 / sigma^2 (sigma^2 - (alpha / alpha_n)^2 sigma_n^2); for neighbouring levels this is
    beta-tilde of Ho et al. (2020), eq. 7.
    """
    variance, variance_next = schedule.sigma(level) ** 2, schedule.sigma(level_next) ** 2
    ratio = schedule.alpha(level) / schedule.alpha(level_next)
    added = max(variance - ratio**2 * variance_next, 0.0)  # Rounding must not make it negative.
    return added * variance_next / variance


def noise_like(x: Tensor, generator: Generator | None) -> Tensor:
    """Standard normal noise of x's shape, type and device, drawn on the generator's device."""
    device = x.device if generator is None else generator.device
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=device).to(x.device)
