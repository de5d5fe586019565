"""Policies whose distribution is known in closed form: the denoiser is a formula, not a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from data.spec import ActionSpec, DataSpec, Horizons, ObsSpec
from policy.diffusion_policy import DiffusionPolicy
from policy.normalizer import Normalizer
from policy.schedule import CosineSchedule, Schedule
from tests.tiny_policy import Bounds

Mean = Callable[[Tensor], Tensor]  # context (B, 1, D) -> (B, Tp, A)
SCHEDULE = CosineSchedule(num_levels=1000)


class SeesAll(nn.Module):
    """One token (B, 1, D): the newest row of every key, one after the other."""

    def __init__(self, spec: DataSpec, horizons: Horizons, keys: tuple[str, ...]) -> None:
        super().__init__()
        self.keys = keys
        self.context_dim = sum(spec.obs[key].shape[0] for key in keys)

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        return torch.cat([obs[key][:, -1:] for key in self.keys], -1)


class Gaussian(nn.Module):
    """E[x0 | x] for x0 ~ N(mean(context), spread^2 I)."""

    def __init__(self, mean: Mean, spread: float, schedule: Schedule = SCHEDULE) -> None:
        super().__init__()
        self.mean, self.spread, self.schedule = mean, spread, schedule

    def forward(self, x: Tensor, level: Tensor, context: Tensor) -> Tensor:
        alpha, sigma = self.schedule.alpha(level)[..., None], self.schedule.sigma(level)[..., None]
        mean = self.mean(context)
        gain = alpha * self.spread**2 / (alpha**2 * self.spread**2 + sigma**2)
        return mean + gain * (x - alpha * mean)


class TwoPoints(nn.Module):
    """E[x0 | x] for x0 = +where with probability `plus`, else -where; one number."""

    def __init__(self, where: float, plus: float, schedule: Schedule = SCHEDULE) -> None:
        super().__init__()
        self.where, self.plus, self.schedule = where, plus, schedule

    def forward(self, x: Tensor, level: Tensor, context: Tensor) -> Tensor:
        alpha, sigma = self.schedule.alpha(level)[..., None], self.schedule.sigma(level)[..., None]
        prior = torch.tensor(self.plus / (1 - self.plus)).log()
        odds = prior + 2 * alpha * self.where * x / sigma**2
        return self.where * torch.tanh(odds / 2)


def toy_spec(state_dim: int, action_dim: int, discrete: tuple[int, ...] = ()) -> DataSpec:
    names = tuple(f"a{i}" for i in range(action_dim))
    bounds = (10.0,) * action_dim
    action = ActionSpec(
        names, ("m",) * action_dim, tuple(-b for b in bounds), bounds, discrete=discrete
    )
    return DataSpec({"state": ObsSpec((state_dim,), "state", "m", 10.0)}, action, 10.0, "toy")


def toy_policy(
    spec: DataSpec,
    denoiser: nn.Module,
    pred: int = 8,
    keys: tuple[str, ...] = ("state",),
    **options: Any,
) -> DiffusionPolicy:
    """A policy that sees `keys` as they are and denoises with `denoiser`.

    Units of the network are those of the world, unless a normalizer is given.
    """
    unit = {key: Bounds(-np.ones(s.shape), np.ones(s.shape)) for key, s in spec.obs.items()}
    unit["action"] = Bounds(-np.ones(spec.action.dim), np.ones(spec.action.dim))
    spec = spec.select(keys)
    options.setdefault("normalizer", Normalizer.fit(unit, spec))

    def encoder(spec: DataSpec, horizons: Horizons) -> SeesAll:
        return SeesAll(spec, horizons, keys)

    policy = DiffusionPolicy(
        spec,
        Horizons(obs=1, pred=pred, window=16),
        encoder=cast("Callable[..., Any]", encoder),
        denoiser=lambda **_: denoiser,
        schedule=SCHEDULE,
        clip=100.0,
        **options,
    )
    return policy.eval()
