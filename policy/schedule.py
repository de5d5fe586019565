"""Noise schedules: x_t = alpha(level) x0 + sigma(level) eps, level 0 is data, level 1 is noise."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

# A float where the whole chunk has one level (in solving), else a tensor that broadcasts to x.
Level = TypeVar("Level", float, Tensor)


class Schedule(Protocol):
    """How much signal and noise a level in [0, 1] holds."""

    @property
    def num_levels(self) -> int:
        """N: training draws the levels k / N with k = 1 .. N."""
        ...

    def alpha(self, level: Level) -> Level:
        """Signal factor."""
        ...

    def sigma(self, level: Level) -> Level:
        """Noise factor."""
        ...


@dataclass(frozen=True)
class CosineSchedule:
    """Squared-cosine schedule of Nichol and Dhariwal (2021), eq. 17, betas capped at 0.999.

    alpha^2(k / N) is `alphas_cumprod[k - 1]` of diffusers' `squaredcos_cap_v2`.
    """

    num_levels: int = 100

    def __post_init__(self) -> None:
        _check_num_levels(self.num_levels)

    def alpha(self, level: Level) -> Level:
        """Signal factor."""
        return _alpha(_cosine_angles(self.num_levels), level)

    def sigma(self, level: Level) -> Level:
        """Noise factor."""
        return _sigma(_cosine_angles(self.num_levels), level)


@dataclass(frozen=True)
class LinearSchedule:
    """Betas rising linearly, Ho et al. (2020); diffusers' `linear`.

    With the usual betas it takes 1000 levels until level 1 is nearly pure noise; with 100 levels
    alpha(1) is 0.6, and starting from pure noise would not fit the training.
    """

    num_levels: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02

    def __post_init__(self) -> None:
        _check_num_levels(self.num_levels)

    def alpha(self, level: Level) -> Level:
        """Signal factor."""
        return _alpha(self._angles(), level)

    def sigma(self, level: Level) -> Level:
        """Noise factor."""
        return _sigma(self._angles(), level)

    def _angles(self) -> tuple[float, ...]:
        return _linear_angles(self.num_levels, self.beta_start, self.beta_end)


@dataclass(frozen=True)
class FlowSchedule:
    """Straight paths: alpha = 1 - level, sigma = level, as in rectified flow."""

    num_levels: int = 100

    def __post_init__(self) -> None:
        _check_num_levels(self.num_levels)

    def alpha(self, level: Level) -> Level:
        """Signal factor."""
        return 1 - level

    def sigma(self, level: Level) -> Level:
        """Noise factor."""
        return level


def _check_num_levels(num_levels: int) -> None:
    if num_levels < 1:
        raise ValueError(f"num_levels must be at least 1, got {num_levels}.")


@functools.cache
def _cosine_angles(num_levels: int) -> tuple[float, ...]:
    def signal(level: float) -> float:
        return math.cos((level + 0.008) / 1.008 * math.pi / 2) ** 2

    return _angles(
        [
            min(1 - signal((k + 1) / num_levels) / signal(k / num_levels), 0.999)
            for k in range(num_levels)
        ]
    )


@functools.cache
def _linear_angles(num_levels: int, start: float, end: float) -> tuple[float, ...]:
    return _angles(torch.linspace(start, end, num_levels, dtype=torch.float64).tolist())


def _angles(betas: list[float]) -> tuple[float, ...]:
    """Angle whose cosine is alpha and whose sine is sigma, for every level of the grid.

    Between grid points angles are interpolated: alpha^2 + sigma^2 stays 1, and both keep their
    relative precision at the ends.
    """
    angles, signal = [0.0], 1.0
    for beta in betas:
        signal *= 1 - beta
        angles.append(math.atan2(math.sqrt(1 - signal), math.sqrt(signal)))
    return tuple(angles)


def _alpha(angles: tuple[float, ...], level: Level) -> Level:
    if isinstance(level, Tensor):
        return _angle_tensor(angles, level).cos().to(level.dtype)
    return math.cos(_angle_float(angles, level))


def _sigma(angles: tuple[float, ...], level: Level) -> Level:
    if isinstance(level, Tensor):
        return _angle_tensor(angles, level).sin().to(level.dtype)
    return math.sin(_angle_float(angles, level))


def _angle_float(angles: tuple[float, ...], level: float) -> float:
    last = len(angles) - 1
    below = min(int(level * last), last - 1)
    return angles[below] + (level * last - below) * (angles[below + 1] - angles[below])


def _angle_tensor(angles: tuple[float, ...], level: Tensor) -> Tensor:
    table = _angle_table(angles, level.device)
    last = len(angles) - 1
    position = level.double() * last
    below = position.long().clamp_(max=last - 1)
    return torch.lerp(table[below], table[below + 1], position - below)


@functools.cache
def _angle_table(angles: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(angles, dtype=torch.float64, device=device)
