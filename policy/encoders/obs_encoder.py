"""All observations to context tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from data.spec import DataSpec, Horizons, Modality


class TokenSpec(NamedTuple):
    """What the encoder of one key gives: (B, num_tokens, dim)."""

    modality: Modality
    num_tokens: int
    dim: int


class ObsEncoder(nn.Module):
    """One encoder per key, then a fusion: key -> (B, ...) in, (B, N, D) out.

    Args:
        spec: Of the data; keys without an encoder are not looked at.
        horizons: Window lengths.
        encoders: Key -> constructor `(spec: ObsSpec, horizons) -> module` with `num_tokens`, `dim`.
        fusion: Constructor `(tokens: dict[str, TokenSpec]) -> module` with `num_tokens`, `dim`.
    """

    def __init__(
        self,
        spec: DataSpec,
        horizons: Horizons,
        encoders: Mapping[str, Callable[..., nn.Module]],
        fusion: Callable[..., nn.Module],
    ) -> None:
        super().__init__()
        if not encoders:
            raise ValueError(f"No encoder given; the data has the keys {sorted(spec.obs)}.")
        self.keys = tuple(encoders)
        specs = spec.select(self.keys).obs
        self.encoders = nn.ModuleDict(
            {key: make(spec=specs[key], horizons=horizons) for key, make in encoders.items()}
        )
        tokens = {
            key: TokenSpec(specs[key].modality, *_size(module))
            for key, module in self.encoders.items()
        }
        self.fusion = fusion(tokens=tokens)
        self.num_tokens, self.dim = _size(self.fusion)

    @property
    def context_dim(self) -> int:
        """N * D, the size of the flattened context."""
        return self.num_tokens * self.dim

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Normalised windowed observations to context."""
        context: Tensor = self.fusion({key: self.encoders[key](obs[key]) for key in self.keys})
        return context


def flat_dim(tokens: Mapping[str, TokenSpec]) -> int:
    """Size of all tokens put one after the other."""
    return sum(spec.num_tokens * spec.dim for spec in tokens.values())


def flat(tokens: Mapping[str, Tensor]) -> Tensor:
    """All tokens of a sample as one vector (B, flat_dim)."""
    return torch.cat([token.flatten(1) for token in tokens.values()], 1)


def _size(module: nn.Module) -> tuple[int, int]:
    num_tokens, dim = module.num_tokens, module.dim
    assert isinstance(num_tokens, int)
    assert isinstance(dim, int)
    return num_tokens, dim
