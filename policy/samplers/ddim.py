"""Denoising diffusion implicit models."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Generator, Tensor

from policy.samplers.base import Evaluation, noise_like, posterior_variance
from policy.schedule import Schedule


@dataclass(frozen=True)
class DDIM:
    """Song et al. (2021), eq. 12: x_n = alpha_n x0 + sqrt(sigma_n^2 - s^2) eps + s z.

    s^2 = eta^2 times the posterior variance: eta 0 is deterministic, eta 1 is ancestral sampling.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must be between 0 and 1, got {self.eta}.")

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
        """The iterate at `level_next`."""
        variance = 0.0
        if self.eta > 0:
            variance = self.eta**2 * posterior_variance(level, level_next, schedule)
        # eps = (x - alpha x0) / sigma, inserted and sorted by x and x0.
        direction = math.sqrt(max(schedule.sigma(level_next) ** 2 - variance, 0.0))
        keep = direction / schedule.sigma(level)
        signal = schedule.alpha(level_next) - keep * schedule.alpha(level)
        x_next = keep * x + signal * x0
        if variance > 0:
            x_next = x_next + math.sqrt(variance) * noise_like(x, generator)
        return x_next
