"""A solve in which every action has a level of its own: along a path of levels, row by row.

    row 0   [0 0 | 1.0 1.0 | 1.0 1.0]      clean actions stay as they are and tell the others
    row 1   [0 0 | 0.5 0.5 | 1.0 1.0]      what came before them
    row 2   [0 0 | 0.0 0.0 | 0.5 0.5]

Pure functions beside `DiffusionPolicy.begin` and `step`, for policies that were trained with such
levels (`policy.level_plan`): who solves holds the state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Generator, Tensor

from policy.diffusion_policy import DiffusionPolicy
from policy.normalizer import ACTION
from policy.samplers.base import Sampler, noise_like
from policy.schedule import Schedule

Levels = tuple[float, ...]  # (Tp,)


@dataclass(frozen=True, slots=True)
class PathState:
    """Where a solve is, in network units."""

    context: Tensor  # (B, N, D)
    x: Tensor  # (B, Tp, A) at path[nfe]
    x0: Tensor  # (B, Tp, A) the best estimate so far; before the first step what `begin` was given
    path: tuple[Levels, ...]
    sampler: Sampler
    generator: Generator | None = None
    nfe: int = 0

    @property
    def done(self) -> bool:
        """True when the last row is reached."""
        return self.nfe == len(self.path) - 1

    @property
    def levels(self) -> Levels:
        """Of x."""
        return self.path[self.nfe]


def begin(
    policy: DiffusionPolicy,
    context: Tensor,
    x: Tensor,
    path: Sequence[Levels],
    *,
    x0: Tensor | None = None,
    sampler: Sampler | None = None,
    generator: Generator | None = None,
) -> PathState:
    """A solve before its first step, from the iterate `x` (B, Tp, A) at the levels `path[0]`.

    Args:
        policy: Whose network it is.
        context: From `policy.encode`.
        x: In network units; where the level is 0, clean actions.
        path: Levels before the first step and after each; they may only fall.
        x0: What is known so far in network units; x if None.
        sampler: The policy's own if None. Multistep schemes work at first order.
        generator: Source of all noise; torch's default one if None.
    """
    for row in path:
        if len(row) != x.shape[1] or not all(0 <= level <= 1 for level in row):
            raise ValueError(f"a row holds {x.shape[1]} levels in [0, 1], got {row}.")
    for before, after in pairwise(path):
        if any(b < a for b, a in zip(before, after, strict=True)):
            raise ValueError(f"levels may only fall along a path, got {before} and then {after}.")
    x0 = x if x0 is None else x0
    return PathState(context, x, x0, tuple(path), sampler or policy.sampler, generator)


def step(policy: DiffusionPolicy, state: PathState) -> PathState:
    """The solve one network evaluation further."""
    if state.done:
        raise ValueError(f"The solve is done after {state.nfe} steps; begin a new one.")
    x, now, after = state.x, state.path[state.nfe], state.path[state.nfe + 1]
    level = x.new_tensor(now).expand(len(x), -1)  # (B, Tp)
    out = policy.denoiser(x, level, state.context)
    x0 = policy.parameterization.to_x0(out, x, level[..., None], policy.schedule)
    # At level 0 the network was taught nothing, and there is nothing to estimate.
    x0 = torch.where(level[..., None] > 0, x0.clamp(-policy.clip, policy.clip), x)
    x_next = x.clone()
    for span, here, there in _runs(now, after):
        x_next[:, span] = state.sampler.step(
            x[:, span], x0[:, span], here, there, policy.schedule, None, state.generator
        )
    return PathState(
        state.context, x_next, x0, state.path, state.sampler, state.generator, state.nfe + 1
    )


def actions(policy: DiffusionPolicy, state: PathState) -> Tensor:
    """The chunk (B, Tp, A) so far, in physical units, within the spec's bounds."""
    physical = policy.normalizer.unnormalize(ACTION, state.x0)
    return physical.clamp(policy.low, policy.high)


def raise_levels(
    x: Tensor, now: Levels, wanted: Levels, schedule: Schedule, generator: Generator | None
) -> Tensor:
    """The iterate (B, Tp, A) at levels `now` with noise added up to `wanted`: the forward process.

    x' = r x + sqrt(sigma'^2 - r^2 sigma^2) eps with r = alpha' / alpha.
    """
    factors = [_forward(here, there, schedule) for here, there in zip(now, wanted, strict=True)]
    keep, add = x.new_tensor(factors).T[..., None]  # each (Tp, 1)
    raised: Tensor = keep * x + add * noise_like(x, generator)
    return raised


def _forward(level: float, level_next: float, schedule: Schedule) -> tuple[float, float]:
    """Factors of the iterate and of noise."""
    if level_next <= level:
        return 1.0, 0.0
    ratio = schedule.alpha(level_next) / schedule.alpha(level)
    added = schedule.sigma(level_next) ** 2 - (ratio * schedule.sigma(level)) ** 2
    return ratio, math.sqrt(max(added, 0.0))


def _runs(now: Levels, after: Levels) -> Iterator[tuple[slice, float, float]]:
    """Neighbouring actions that make the same step, as long as they make one."""
    steps = list(zip(now, after, strict=True))
    start = 0
    for index in range(1, len(steps) + 1):
        if index == len(steps) or steps[index] != steps[start]:
            here, there = steps[start]
            if there < here:
                yield slice(start, index), here, there
            start = index
