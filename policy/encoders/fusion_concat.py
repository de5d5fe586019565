"""Fusion by concatenation."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from policy.encoders.obs_encoder import TokenSpec, flat, flat_dim


class Concat(nn.Module):
    """All tokens one after the other through an MLP to one token (B, 1, dim)."""

    def __init__(self, tokens: Mapping[str, TokenSpec], hidden: int = 256, dim: int = 128) -> None:
        super().__init__()
        self.num_tokens, self.dim = 1, dim
        self.mlp = nn.Sequential(
            nn.Linear(flat_dim(tokens), hidden), nn.Mish(), nn.Linear(hidden, dim)
        )

    def forward(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Tokens of every key to the context."""
        context: Tensor = self.mlp(flat(tokens))
        return context[:, None]
