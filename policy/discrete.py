"""What a warm start makes of discrete action dimensions, which resist being changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from policy.schedule import Schedule
from policy.warm_start import WarmStart

TREATMENTS = ("none", "clip", "scale", "neutral")


def soften(x: Tensor, discrete: Sequence[int], how: str, factor: float) -> Tensor:
    """`x` (..., A) in network units with its `discrete` dimensions treated.

    A denoiser that reads +-g0 at a level, in data at +-gd, needs an observation worth
    2 alpha g0 gd / sigma^2 nats to decide for the other sign: 21 at level 0.19 of the cosine
    schedule for g0 = gd = 1. A smaller g0 is what makes few evaluations at low levels possible.

        none      g                   the decision stays where it was
        clip      sign(g) / factor    g0 = 1 / factor whatever was planned (Duan et al. 2025)
        scale     g / factor          the same, but what was undecided stays undecided
        neutral   0                   no memory: the network decides anew
    """
    if how == "none" or not discrete:
        return x
    dims, x = list(discrete), x.clone()
    if how == "clip":
        # Not sign(): 0 must be either as well, as in the published code.
        x[..., dims] = torch.where(x[..., dims] > 0, 1.0, -1.0).to(x) / factor
    elif how == "scale":
        x[..., dims] = x[..., dims] / factor
    else:
        x[..., dims] = 0.0
    return x


@dataclass(frozen=True)
class Softened:
    """A warm start whose prior was treated by `soften`."""

    warm_start: WarmStart
    discrete: tuple[int, ...]
    how: str
    factor: float

    def __call__(
        self, prior: Tensor, level: float, schedule: Schedule, generator: Generator | None
    ) -> Tensor:
        """The first iterate."""
        prior = soften(prior, self.discrete, self.how, self.factor)
        return self.warm_start(prior, level, schedule, generator)

    def factors(self, level: float, schedule: Schedule) -> tuple[float, float]:
        """Those of the treated prior and of the noise."""
        return self.warm_start.factors(level, schedule)


def softened(
    warm_start: WarmStart, discrete: Sequence[int], how: str, factor: float = 10.0
) -> WarmStart:
    """`warm_start` itself where there is nothing to treat, else `Softened`."""
    if how not in TREATMENTS:
        raise ValueError(f"discrete {how!r} is unknown; known: {', '.join(TREATMENTS)}.")
    if not factor >= 1:
        raise ValueError(f"discrete_factor must be at least 1, got {factor}.")
    if how == "none" or not discrete:
        return warm_start
    return Softened(warm_start, tuple(discrete), how, factor)
