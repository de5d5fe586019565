"""Fusion with a gate on the wrench."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from policy.encoders.fusion_concat import Concat
from policy.encoders.obs_encoder import TokenSpec, flat, flat_dim


class Gated(nn.Module):
    """wrench <- g wrench + (1 - g) no_contact with g in (0, 1) from all features; then `Concat`.

    In free motion a wrench is only noise and bias: the gate replaces it by one learned embedding.
    """

    def __init__(self, tokens: Mapping[str, TokenSpec], hidden: int = 256, dim: int = 128) -> None:
        super().__init__()
        gated = {key: spec for key, spec in tokens.items() if spec.modality == "wrench"}
        if not gated:
            raise ValueError(
                f"Gated needs an observation of modality 'wrench', got {sorted(tokens)}; "
                "use Concat without one."
            )
        self.gate = nn.Sequential(
            nn.Linear(flat_dim(tokens), 64), nn.Mish(), nn.Linear(64, len(gated)), nn.Sigmoid()
        )
        self.no_contact = nn.ParameterDict(
            {
                key: nn.Parameter(torch.zeros(spec.num_tokens, spec.dim))
                for key, spec in gated.items()
            }
        )
        self.concat = Concat(tokens, hidden, dim)
        self.num_tokens, self.dim = self.concat.num_tokens, self.concat.dim

    def forward(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Tokens of every key to the context."""
        gates = self.gate(flat(tokens))[..., None, None].unbind(1)  # each (B, 1, 1)
        blended = {
            key: no_contact + gate * (tokens[key] - no_contact)  # lerp refuses mixed precision
            for (key, no_contact), gate in zip(self.no_contact.items(), gates, strict=True)
        }
        context: Tensor = self.concat({**tokens, **blended})
        return context
