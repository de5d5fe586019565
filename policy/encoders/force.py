"""Encoder of force-torque histories."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from data.spec import Horizons, ObsSpec


class CausalConvEncoder(nn.Module):
    """Strided causal convolutions over the last W samples (B, W, C) to one token (B, 1, dim).

    Every feature ends at the end of its block of samples, the last one at the newest sample:

        sample    0 1 2 3 4 5 6 7     stride 2
        layer 1     0   1   2   3
        layer 2         0       1

    Time is never pooled, because when the load dropped matters. Nothing is normalised on the way
    either: the absolute load is the signal.
    """

    def __init__(
        self,
        spec: ObsSpec,
        horizons: Horizons,
        channels: tuple[int, ...] = (32, 32, 32),
        kernel_size: int = 5,
        stride: int = 2,
        dim: int = 64,
    ) -> None:
        super().__init__()
        if len(spec.shape) != 1 or kernel_size < stride:
            raise ValueError(
                f"A sample must be a vector and the kernel as long as the stride, got shape "
                f"{spec.shape}, kernel_size {kernel_size}, stride {stride}."
            )
        self.num_tokens, self.dim = 1, dim
        sizes = (spec.shape[0], *channels)
        self.convs = nn.ModuleList(
            nn.Conv1d(before, after, kernel_size, stride) for before, after in pairwise(sizes)
        )
        self._paddings, length = [], horizons.window
        for _ in channels:
            self._paddings.append(kernel_size - stride + -length % stride)
            length = -(-length // stride)
        self.project = nn.Linear(length * sizes[-1], dim)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised samples, oldest first, to tokens."""
        features = x.transpose(1, 2)  # (B, C, W)
        for padding, conv in zip(self._paddings, self.convs, strict=True):
            features = F.mish(conv(F.pad(features, (padding, 0))))
        token: Tensor = self.project(features.flatten(1))
        return token[:, None]
