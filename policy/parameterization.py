"""What the network predicts: the noise, the clean actions, or the velocity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from policy.schedule import Level, Schedule


class Parameterization(Protocol):
    """Network output <-> clean actions. Tensor levels must broadcast to x."""

    def to_x0(self, out: Tensor, x: Tensor, level: Level, schedule: Schedule) -> Tensor:
        """Clean actions that the output `out` at (`x`, `level`) stands for."""
        ...

    def target(self, x0: Tensor, eps: Tensor, level: Level, schedule: Schedule) -> Tensor:
        """What the output should be."""
        ...


@dataclass(frozen=True)
class Epsilon:
    """The noise: x0 = (x - sigma out) / alpha.

    Where alpha is (nearly) 0 the output says nothing about x0; `DiffusionPolicy` clips the result.
    """

    def to_x0(self, out: Tensor, x: Tensor, level: Level, schedule: Schedule) -> Tensor:
        """Clean actions, finite even where alpha is 0."""
        return (x - schedule.sigma(level) * out) / (schedule.alpha(level) + 1e-12)

    def target(self, x0: Tensor, eps: Tensor, level: Level, schedule: Schedule) -> Tensor:
        """The noise."""
        return eps


@dataclass(frozen=True)
class X0:
    """The clean actions. One evaluation is a usable chunk at any level: best for few steps."""

    def to_x0(self, out: Tensor, x: Tensor, level: Level, schedule: Schedule) -> Tensor:
        """The output itself."""
        return out

    def target(self, x0: Tensor, eps: Tensor, level: Level, schedule: Schedule) -> Tensor:
        """The clean actions."""
        return x0


@dataclass(frozen=True)
class V:
    """v = alpha eps - sigma x0, Salimans and Ho (2022).

    x0 = (alpha x - sigma v) / (alpha^2 + sigma^2); the denominator is 1 except for `FlowSchedule`.
    """

    def to_x0(self, out: Tensor, x: Tensor, level: Level, schedule: Schedule) -> Tensor:
        """Clean actions."""
        alpha, sigma = schedule.alpha(level), schedule.sigma(level)
        return (alpha * x - sigma * out) / (alpha**2 + sigma**2)

    def target(self, x0: Tensor, eps: Tensor, level: Level, schedule: Schedule) -> Tensor:
        """The velocity."""
        return schedule.alpha(level) * eps - schedule.sigma(level) * x0
