"""Embedding of noise levels."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LevelEmbedding(nn.Module):
    """Levels (B, L) in [0, 1] to sines and cosines (B, L, dim).

    The slowest wave turns once over four units of level, the fastest has a period of 1/25.
    """

    frequencies: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"The embedding is sines and cosines: dim must be even, got {dim}.")
        frequencies = torch.pi / 2 * torch.logspace(0, 2, dim // 2)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, level: Tensor) -> Tensor:
        """Embedding of every level."""
        angle = level[..., None] * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], -1)
