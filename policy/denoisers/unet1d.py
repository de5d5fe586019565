"""Temporal U-Net with feature-wise modulation."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policy.denoisers.embedding import LevelEmbedding


class UNet1d(nn.Module):
    """Convolutional denoiser of Janner et al. (2022) and Chi et al. (2023).

    The level is per action and FiLM acts per time step: at lower resolution the features of the
    levels are averaged over the actions that a step stands for.
    """

    def __init__(
        self,
        action_dim: int,
        pred_horizon: int,
        context_dim: int,
        down_dims: tuple[int, ...] = (128, 256, 512),
        condition_dim: int = 128,
        kernel_size: int = 5,
        num_groups: int = 8,
    ) -> None:
        super().__init__()
        shortest = 2 ** (len(down_dims) - 1)
        if pred_horizon % shortest or any(dim % num_groups for dim in down_dims):
            raise ValueError(
                f"pred_horizon must be a multiple of {shortest} with {len(down_dims)} resolutions, "
                f"down_dims of num_groups; got {pred_horizon}, {down_dims}, {num_groups}."
            )
        self.level_in = nn.Sequential(
            LevelEmbedding(condition_dim),
            nn.Linear(condition_dim, condition_dim),
            nn.Mish(),
            nn.Linear(condition_dim, condition_dim),
        )
        self.context_in = nn.Linear(context_dim, condition_dim)

        def block(before: int, after: int) -> FiLMBlock:
            return FiLMBlock(before, after, condition_dim, kernel_size, num_groups)

        sizes = (action_dim, *down_dims)
        self.down = nn.ModuleList(block(a, b) for a, b in zip(sizes, down_dims, strict=False))
        self.halvings = nn.ModuleList(nn.Conv1d(d, d, 3, 2, 1) for d in down_dims[:-1])
        self.middle = block(down_dims[-1], down_dims[-1])
        reverse = down_dims[::-1]
        self.doublings = nn.ModuleList(
            nn.ConvTranspose1d(a, b, 4, 2, 1) for a, b in pairwise(reverse)
        )
        self.up = nn.ModuleList(block(2 * d, d) for d in reverse[1:])
        self.action_out = nn.Conv1d(down_dims[0], action_dim, 1)
        nn.init.zeros_(self.action_out.weight)
        assert self.action_out.bias is not None
        nn.init.zeros_(self.action_out.bias)

    def forward(self, x: Tensor, level: Tensor, context: Tensor) -> Tensor:
        """Output of x's shape.

        Args:
            x: Noisy actions (B, Tp, A).
            level: Per action (B, Tp), or one for the whole chunk (B, 1), which is cheaper.
            context: Tokens (B, N, D).
        """
        conditions = self._conditions(level, context)
        h = self.down[0](x.transpose(1, 2), conditions[0])  # (B, C, Tp)
        skips = []
        for halve, down, condition in zip(
            self.halvings, self.down[1:], conditions[1:], strict=True
        ):
            skips.append(h)
            h = down(halve(h), condition)
        h = self.middle(h, conditions[-1])
        for double, up, condition in zip(self.doublings, self.up, conditions[-2::-1], strict=True):
            h = up(torch.cat([double(h), skips.pop()], 1), condition)
        out: Tensor = self.action_out(h)
        return out.transpose(1, 2)

    def _conditions(self, level: Tensor, context: Tensor) -> list[Tensor]:
        """Per resolution (B, 1 or steps, condition_dim)."""
        levels = self.level_in(level)
        base = self.context_in(context.flatten(1))[:, None]
        conditions = [F.mish(levels + base)]
        for _ in self.halvings:
            if levels.shape[1] > 1:
                levels = F.avg_pool1d(levels.transpose(1, 2), 2).transpose(1, 2)
            conditions.append(F.mish(levels + base))
        return conditions


class FiLMBlock(nn.Module):
    """Two convolutions around a scale and a shift per channel and step, beside a shortcut."""

    def __init__(
        self, before: int, after: int, condition_dim: int, kernel_size: int, num_groups: int
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.first = nn.Conv1d(before, after, kernel_size, padding=padding)
        self.first_norm = nn.GroupNorm(num_groups, after)
        self.second = nn.Conv1d(after, after, kernel_size, padding=padding)
        self.second_norm = nn.GroupNorm(num_groups, after)
        self.film = nn.Linear(condition_dim, 2 * after)
        self.shortcut = nn.Conv1d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Features (B, C, T), condition (B, 1 or T, condition_dim) to features."""
        scale, shift = self.film(condition).transpose(1, 2).chunk(2, 1)
        h = F.mish(self.first_norm(self.first(x)))
        h = torch.addcmul(shift, h, 1 + scale)
        h = F.mish(self.second_norm(self.second(h)))
        out: Tensor = h + self.shortcut(x)
        return out
