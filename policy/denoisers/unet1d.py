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
        self.halvings = nn.ModuleList(TimeConv(d, d, 3, stride=2) for d in down_dims[:-1])
        self.middle = resolution(down_dims[-1], down_dims[-1])
        self.up = nn.ModuleList(resolution(2 * a, b) for a, b in pairwise(down_dims[::-1]))
        self.doublings = nn.ModuleList(TimeConv(d, 2 * d, 3) for d in down_dims[-2::-1])
        self.last = TimeConv(down_dims[0], down_dims[0], kernel_size)
        self.last_norm = TimeGroupNorm(num_groups, down_dims[0])
        self.action_out = nn.Linear(down_dims[0], action_dim)
        nn.init.zeros_(self.action_out.weight)
        nn.init.zeros_(self.action_out.bias)

    def forward(self, x: Tensor, level: Tensor, context: Tensor) -> Tensor:
        """Output of x's shape.

        Args:
            x: Noisy actions (B, Tp, A).
            level: Per action (B, Tp), or one for the whole chunk (B, 1), which is cheaper.
            context: Tokens (B, N, D).
        """
        conditions = self._conditions(level, context)
        h = self.down[0](x, conditions[0])  # (B, Tp, C)
        skips = []
        for halve, down, condition in zip(
            self.halvings, self.down[1:], conditions[1:], strict=True
        ):
            h = down(halve(h), condition)
            skips.append(h)
        h = self.middle(h, conditions[-1])
        for double, up, condition in zip(self.doublings, self.up, conditions[:0:-1], strict=True):
            h = up(torch.cat([h, skips.pop()], -1), condition)
            # Two outputs a step: a convolution at the lower resolution (Shi et al., 2016).
            h = double(h).reshape(len(h), 2 * h.shape[1], -1)
        out: Tensor = self.action_out(F.mish(self.last_norm(self.last(h))))
        return out

    def _conditions(self, level: Tensor, context: Tensor) -> list[Tensor]:
        """Per resolution (B, 1 or steps, condition_dim)."""
        levels = self.level_in(level)
        base = self.context_in(context.flatten(1))[:, None]
        conditions = [F.mish(levels + base)]
        for _ in self.halvings:
            if levels.shape[1] > 1:
                levels = levels.unflatten(1, (-1, 2)).mean(2)
            conditions.append(F.mish(levels + base))
        return conditions


class FiLMStack(nn.ModuleList):
    """FiLM blocks one after the other, under the same condition."""

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Features (B, T, C), condition (B, 1 or T, condition_dim) to features."""
        for block in self:
            x = block(x, condition)
        return x


class FiLMBlock(nn.Module):
    """Two convolutions around a scale and a shift per channel and step, beside a shortcut."""

    def __init__(
        self, before: int, after: int, condition_dim: int, kernel_size: int, num_groups: int
    ) -> None:
        super().__init__()
        self.first = TimeConv(before, after, kernel_size)
        self.first_norm = TimeGroupNorm(num_groups, after)
        self.second = TimeConv(after, after, kernel_size)
        self.second_norm = TimeGroupNorm(num_groups, after)
        self.film = nn.Linear(condition_dim, 2 * after)
        self.shortcut = nn.Linear(before, after) if before != after else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Features (B, T, C), condition (B, 1 or T, condition_dim) to features."""
        scale, shift = self.film(condition).chunk(2, -1)
        h = F.mish(self.first_norm(self.first(x)))
        h = torch.addcmul(shift, h, 1 + scale)
        h = F.mish(self.second_norm(self.second(h)))
        out: Tensor = h + self.shortcut(x)
        return out


class TimeConv(nn.Linear):
    """Convolution over time of features (B, T, C), as one matrix product.

    Chunks are short and channels many: a convolution kernel spends its time on bringing the
    weights, which lie in one piece here, into an order of its own (docs/performance.md).
    """

    def __init__(self, before: int, after: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__(kernel_size * before, after)
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, T, C) to (B, T / stride, C'), padded with zeros."""
        span, half = x.shape[1], self.kernel_size // 2
        padded = F.pad(x, (0, 0, half, half))
        taps = [padded[:, tap : tap + span : self.stride] for tap in range(self.kernel_size)]
        return super().forward(torch.cat(taps, -1))


class TimeGroupNorm(nn.GroupNorm):
    """GroupNorm of features (B, T, C), without reordering them."""

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        image = x.transpose(1, 2)[:, :, None]  # (B, C, 1, T), channels last
        return super().forward(image)[:, :, 0].transpose(1, 2)
