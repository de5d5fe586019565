"""Fusion in which touch asks vision where to look."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policy.encoders.obs_encoder import TokenSpec


class CrossAttention(nn.Module):
    """Wrench and state tokens attend to image tokens; one context token per query (B, N, dim).

    Pre-norm block: h = q + attention(norm(q), norm(patches)); context = norm(h + mlp(norm(h))).
    Queries and patches carry learned positions: which key, which frame, which place. Use image
    encoders with pool "tokens", otherwise there is one place only.
    """

    def __init__(
        self, tokens: Mapping[str, TokenSpec], num_heads: int = 4, dim: int = 64, mlp_ratio: int = 2
    ) -> None:
        super().__init__()
        self.image_keys = tuple(k for k, spec in tokens.items() if spec.modality == "image")
        self.query_keys = tuple(k for k, spec in tokens.items() if spec.modality != "image")
        if not self.image_keys or not self.query_keys or dim % num_heads:
            raise ValueError(
                "CrossAttention needs an image, a wrench or state, and a dim that the heads "
                f"divide; got {dict(tokens)}, dim {dim}, num_heads {num_heads}."
            )
        self.num_heads, self.dim = num_heads, dim
        self.num_tokens = sum(tokens[key].num_tokens for key in self.query_keys)
        num_patches = sum(tokens[key].num_tokens for key in self.image_keys)
        self.project = nn.ModuleDict({k: nn.Linear(spec.dim, dim) for k, spec in tokens.items()})
        self.query_position = nn.Parameter(0.02 * torch.randn(self.num_tokens, dim))
        self.patch_position = nn.Parameter(0.02 * torch.randn(num_patches, dim))
        self.query_norm, self.patch_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.to_query, self.to_key_value = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.attended = nn.Linear(dim, dim)
        self.mlp = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, mlp_ratio * dim),
            nn.GELU(),
            nn.Linear(mlp_ratio * dim, dim),
        )
        self.out_norm = nn.LayerNorm(dim)

    def forward(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Tokens of every key to the context."""
        queries = self._gather(tokens, self.query_keys) + self.query_position  # (B, N, dim)
        patches = self._gather(tokens, self.image_keys) + self.patch_position  # (B, P, dim)
        key, value = self.to_key_value(self.patch_norm(patches)).chunk(2, -1)
        attended = F.scaled_dot_product_attention(
            self._heads(self.to_query(self.query_norm(queries))),
            self._heads(key),
            self._heads(value),
        )
        hidden = queries + self.attended(attended.transpose(1, 2).flatten(2))
        context: Tensor = self.out_norm(hidden + self.mlp(hidden))
        return context

    def _gather(self, tokens: Mapping[str, Tensor], keys: tuple[str, ...]) -> Tensor:
        return torch.cat([self.project[key](tokens[key]) for key in keys], 1)

    def _heads(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        return x.view(batch, length, self.num_heads, -1).transpose(1, 2)  # (B, heads, n, D)
