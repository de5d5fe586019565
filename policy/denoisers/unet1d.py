"""Temporal U-Net with feature-wise modulation."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policy.denoisers.embedding import LevelEmbedding


class UNet1d(nn.Module):
    """Convolutional denoiser of Janner et al. (2022) and Chi et al. (2023).

        x -> level 0 --------------------------------.      a level: `blocks` FiLM blocks
               | halve                               .
             level 1 ----------------.               .
               | halve               cat -> level 1 -' double -> out
             level 2 -> middle ------' (level 2's own features) ...

    As in the paper the features of level l meet the way up before it doubles, those of level 0
    are not used again. The noise level is per action and FiLM acts per time step: at lower
    resolution the features of the noise levels are averaged over the actions that a step stands
    for.
    """

    def __init__(
        self,
        action_dim: int,
        pred_horizon: int,
        context_dim: int,
        down_dims: tuple[int, ...] = (128, 256, 512),
        blocks: int = 2,
        condition_dim: int = 128,
        kernel_size: int = 5,
        num_groups: int = 8,
    ) -> None:
        super().__init__()
        shortest = 2 ** (len(down_dims) - 1)
        if pred_horizon % shortest or any(dim % num_groups for dim in down_dims) or blocks < 1:
            raise ValueError(
                f"pred_horizon must be a multiple of {shortest} with {len(down_dims)} resolutions, "
                f"down_dims of num_groups, blocks at least 1; got {pred_horizon}, {down_dims}, "
                f"{num_groups}, {blocks}."
            )
        self.level_in = nn.Sequential(
            LevelEmbedding(condition_dim),
            nn.Linear(condition_dim, condition_dim),
            nn.Mish(),
            nn.Linear(condition_dim, condition_dim),
        )
        self.context_in = nn.Linear(context_dim, condition_dim)

        def resolution(before: int, after: int) -> FiLMStack:
            sizes = (before, *[after] * blocks)
            return FiLMStack(
                FiLMBlock(a, b, condition_dim, kernel_size, num_groups) for a, b in pairwise(sizes)
            )

        self.down = nn.ModuleList(resolution(a, b) for a, b in pairwise((action_dim, *down_dims)))
        self.halvings = nn.ModuleList(nn.Conv1d(d, d, 3, 2, 1) for d in down_dims[:-1])
        self.middle = resolution(down_dims[-1], down_dims[-1])
        self.up = nn.ModuleList(resolution(2 * a, b) for a, b in pairwise(down_dims[::-1]))
        self.doublings = nn.ModuleList(nn.ConvTranspose1d(d, d, 4, 2, 1) for d in down_dims[-2::-1])
        self.last = nn.Conv1d(down_dims[0], down_dims[0], kernel_size, padding=kernel_size // 2)
        self.last_norm = nn.GroupNorm(num_groups, down_dims[0])
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
            h = down(halve(h), condition)
            skips.append(h)
        h = self.middle(h, conditions[-1])
        for double, up, condition in zip(self.doublings, self.up, conditions[:0:-1], strict=True):
            h = double(up(torch.cat([h, skips.pop()], 1), condition))
        out: Tensor = self.action_out(F.mish(self.last_norm(self.last(h))))
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


class FiLMStack(nn.ModuleList):
    """FiLM blocks one after the other, under the same condition."""

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Features (B, C, T), condition (B, 1 or T, condition_dim) to features."""
        for block in self:
            x = block(x, condition)
        return x


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
