"""Denoising diffusion probabilistic models."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Generator, Tensor

from policy.samplers.base import Evaluation, noise_like, posterior_variance
from policy.schedule import Schedule


@dataclass(frozen=True)
class DDPM:
    """Draws from the posterior q(x_n | x, x0), Ho et al. (2020), eq. 6 and 7, for any jump.

    mean = r q x + (alpha_n - r q alpha) x0 with r = alpha / alpha_n, q = sigma_n^2 / sigma^2.
    """

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
        alpha, alpha_next = schedule.alpha(level), schedule.alpha(level_next)
        keep = alpha / alpha_next * (schedule.sigma(level_next) / schedule.sigma(level)) ** 2
        x_next = keep * x + (alpha_next - keep * alpha) * x0
        variance = posterior_variance(level, level_next, schedule)
        if variance > 0:
            x_next = x_next + math.sqrt(variance) * noise_like(x, generator)
        return x_next
