"""Diffusion transformer with adaptive layer norm."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policy.denoisers.embedding import LevelEmbedding


class DiffusionTransformer(nn.Module):
    """DiT with AdaLN-zero (Peebles and Xie, 2023) over the action chunk.

    A token is `actions_per_token` neighbouring actions; it is conditioned on their levels and on
    the flattened context. Two actions per token cost half as much, and have been as good.

    The modulations of all layers come out of one matrix product: at batch 1 the number of
    operations decides, not their size.
    """

    def __init__(
        self,
        action_dim: int,
        pred_horizon: int,
        context_dim: int,
        width: int = 128,
        num_layers: int = 4,
        num_heads: int = 4,
        actions_per_token: int = 2,
        mlp_ratio: int = 4,
    ) -> None:
        super().__init__()
        if pred_horizon % actions_per_token or width % num_heads:
            raise ValueError(
                f"actions_per_token must divide pred_horizon, num_heads the width; got "
                f"{actions_per_token}, {pred_horizon}, {num_heads}, {width}."
            )
        self.actions_per_token, self.width, self.num_layers = actions_per_token, width, num_layers
        self.action_in = nn.Linear(actions_per_token * action_dim, width)
        self.position = nn.Parameter(0.02 * torch.randn(pred_horizon // actions_per_token, width))
        self.level_embedding = LevelEmbedding(width // 2)
        self.level_in = nn.Sequential(
            nn.Linear(actions_per_token * (width // 2), width), nn.Mish(), nn.Linear(width, width)
        )
        self.context_in = nn.Linear(context_dim, width)
        self.blocks = nn.ModuleList(Block(width, num_heads, mlp_ratio) for _ in range(num_layers))
        # A scale and a shift per norm (two a layer, one at the end), a gate per branch.
        self.num_norms, self.num_gates = 2 * num_layers + 1, 2 * num_layers
        self.modulation = nn.Linear(width, (2 * self.num_norms + self.num_gates) * width)
        self.action_out = nn.Linear(width, actions_per_token * action_dim)
        for zeroed in (self.modulation, self.action_out):
            nn.init.zeros_(zeroed.weight)
            nn.init.zeros_(zeroed.bias)

    def forward(self, x: Tensor, level: Tensor, context: Tensor) -> Tensor:
        """Output of x's shape.

        Args:
            x: Noisy actions (B, Tp, A).
            level: Per action (B, Tp), or one for the whole chunk (B, 1), which is cheaper.
            context: Tokens (B, N, D).
        """
        batch = x.shape[0]
        scales, shifts, gates = self._modulate(level, context)
        h = self.action_in(x.reshape(batch, len(self.position), -1)) + self.position
        for i, block in enumerate(self.blocks):
            pair = slice(2 * i, 2 * i + 2)
            h = block(h, scales[pair], shifts[pair], gates[pair])
        h = torch.addcmul(shifts[-1], F.layer_norm(h, (self.width,)), scales[-1])
        out: Tensor = self.action_out(h)
        return out.reshape(x.shape)

    def _modulate(
        self, level: Tensor, context: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Scales, shifts and gates, each (B, 1 or tokens, width)."""
        if level.shape[1] == 1:
            level = level.expand(-1, self.actions_per_token)
        waves = self.level_embedding(level).unflatten(1, (-1, self.actions_per_token)).flatten(2)
        condition = F.mish(self.level_in(waves) + self.context_in(context.flatten(1))[:, None])
        modulation = self.modulation(condition).unflatten(-1, (-1, self.width))
        scales, shifts, gates = modulation.split(
            (self.num_norms, self.num_norms, self.num_gates), dim=2
        )
        return (1 + scales).unbind(2), shifts.unbind(2), gates.unbind(2)


class Block(nn.Module):
    """Self-attention and MLP, each behind a modulated norm and a gate."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.width, self.num_heads = width, num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_ratio * width),
            nn.GELU(),  # exact: its tanh approximation takes torch 2.5 times as long on a CPU
            nn.Linear(mlp_ratio * width, width),
        )

    def forward(
        self,
        h: Tensor,
        scales: tuple[Tensor, ...],
        shifts: tuple[Tensor, ...],
        gates: tuple[Tensor, ...],
    ) -> Tensor:
        """Tokens (B, n, width) to tokens."""
        normed = torch.addcmul(shifts[0], F.layer_norm(h, (self.width,)), scales[0])
        qkv = self.qkv(normed).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)  # each (B, heads, n, width / heads)
        attention = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        h = torch.addcmul(h, gates[0], self.attended(attention))
        normed = torch.addcmul(shifts[1], F.layer_norm(h, (self.width,)), scales[1])
        return torch.addcmul(h, gates[1], self.mlp(normed))
