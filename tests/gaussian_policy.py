"""A policy whose answer is known: Gaussian chunks, and the denoiser that is exact for them."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.spec import ActionSpec, DataSpec, Horizons, ObsSpec
from policy.diffusion_policy import DiffusionPolicy
from policy.encoders import Concat, ObsEncoder, StateMLP
from policy.normalizer import Normalizer
from policy.schedule import CosineSchedule

SPREAD, MEMORY, PRED_HORIZON = 0.5, 0.7, 8
SPEC = DataSpec(
    obs={"pose": ObsSpec((3,), "state", "m", 10)},
    action=ActionSpec(("dx",), ("m",), (-2.0,), (2.0,)),
    rate_hz=10,
)
HORIZONS = Horizons(obs=1, pred=PRED_HORIZON, window=8)
OBS = {"pose": np.zeros((1, 3), np.float32)}


class Limits(NamedTuple):
    min: NDArray[np.float64]
    max: NDArray[np.float64]


def covariance(length: int = PRED_HORIZON) -> Tensor:
    """Of an autoregressive process: SPREAD^2 MEMORY^|i - j|."""
    index = torch.arange(length, dtype=torch.float64)
    return SPREAD**2 * MEMORY ** (index[:, None] - index).abs()


class ExactDenoiser(nn.Module):
    """E[x0 | x] of a Gaussian chunk with a level per action: S a (a S a + s^2)^-1 x."""

    def __init__(self, **sizes: int) -> None:
        super().__init__()
        self.covariance = covariance(sizes["pred_horizon"])
        self.gains: dict[tuple[float, ...], Tensor] = {}

    def forward(self, x: Tensor, level: Tensor, context: Tensor) -> Tensor:
        levels = tuple(level[0].expand(x.shape[1]).tolist())
        if levels not in self.gains:
            self.gains[levels] = self._gain(torch.tensor(levels, dtype=torch.float64)).float()
        return self.gains[levels] @ x

    def _gain(self, level: Tensor) -> Tensor:
        signal, noise = CosineSchedule().alpha(level), CosineSchedule().sigma(level)
        cross = self.covariance * signal
        inner = signal[:, None] * cross + torch.diag(noise**2 + 1e-9)
        gain: Tensor = torch.linalg.solve(inner, cross.T).T
        return gain


def gaussian_policy(**options: Any) -> DiffusionPolicy:
    torch.manual_seed(0)
    encoder = partial(ObsEncoder, encoders={"pose": StateMLP}, fusion=partial(Concat, dim=8))
    limits = {"pose": Limits(-np.ones(3), np.ones(3)), "action": Limits(-np.ones(1), np.ones(1))}
    options = {
        "denoiser": ExactDenoiser,
        "normalizer": Normalizer.fit(limits, SPEC),
        "clip": 2.0,
        **options,
    }
    policy = DiffusionPolicy(SPEC, HORIZONS, encoder, **options)
    return policy.eval().requires_grad_(False)
