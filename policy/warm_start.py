"""First iterate at a level below 1, from the previous solution already shifted in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Generator, Tensor

from policy.samplers.base import noise_like
from policy.schedule import Schedule


class WarmStart(Protocol):
    """Takes the prior (B, Tp, A) in network units to `level`."""

    def __call__(
        self, prior: Tensor, level: float, schedule: Schedule, generator: Generator | None
    ) -> Tensor:
        """The first iterate (B, Tp, A)."""
        ...

    def factors(self, level: float, schedule: Schedule) -> tuple[float, float]:
        """Factors of the prior and of standard normal noise, whose sum the first iterate is."""
        ...


@dataclass(frozen=True)
class AsIs:
    """x = prior: the clean chunk is handed over as if it were noisy, as in RTI-DP, algorithm 1."""

    def __call__(
        self, prior: Tensor, level: float, schedule: Schedule, generator: Generator | None
    ) -> Tensor:
        """The prior itself."""
        return prior

    def factors(self, level: float, schedule: Schedule) -> tuple[float, float]:
        """The prior and no noise."""
        return 1.0, 0.0


@dataclass(frozen=True)
class Scaled:
    """x = alpha prior: the mean of the forward process, without its noise. Deterministic."""

    def __call__(
        self, prior: Tensor, level: float, schedule: Schedule, generator: Generator | None
    ) -> Tensor:
        """The scaled prior."""
        return schedule.alpha(level) * prior

    def factors(self, level: float, schedule: Schedule) -> tuple[float, float]:
        """Alpha and no noise."""
        return schedule.alpha(level), 0.0


@dataclass(frozen=True)
class ReNoised:
    """x = alpha prior + sigma eps: what the network saw in training, as in SDEdit."""

    def __call__(
        self, prior: Tensor, level: float, schedule: Schedule, generator: Generator | None
    ) -> Tensor:
        """A draw from the forward process that starts at the prior."""
        noise = noise_like(prior, generator)
        return schedule.alpha(level) * prior + schedule.sigma(level) * noise

    def factors(self, level: float, schedule: Schedule) -> tuple[float, float]:
        """Alpha and sigma."""
        return schedule.alpha(level), schedule.sigma(level)
