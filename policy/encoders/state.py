"""Encoder of low-dimensional states."""

from __future__ import annotations

import math

from torch import Tensor, nn

from data.spec import Horizons, ObsSpec


class StateMLP(nn.Module):
    """All To samples (B, To, *shape) through one MLP to a single token (B, 1, dim)."""

    def __init__(self, spec: ObsSpec, horizons: Horizons, hidden: int = 128, dim: int = 64) -> None:
        super().__init__()
        self.num_tokens, self.dim = 1, dim
        size = horizons.obs * math.prod(spec.shape)
        self.mlp = nn.Sequential(nn.Linear(size, hidden), nn.Mish(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised states to tokens."""
        token: Tensor = self.mlp(x.flatten(1))
        return token[:, None]
