"""Exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class EMA:
    """average <- d average + (1 - d) weights with d = min(decay, (1 + t) / (10 + t)).

    The warm-up lets the average forget the random initialisation in short trainings. Buffers are
    not averaged.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}.")
        self.decay = decay
        self.step = 0
        self._average = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Count the weights of `model` in."""
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        weights = [p.detach() for p in model.parameters()]
        torch._foreach_lerp_(list(self._average.values()), weights, 1 - decay)
        self.step += 1

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Write the averages into the parameters of `model`."""
        weights = [p.detach() for p in model.parameters()]
        torch._foreach_copy_(weights, list(self._average.values()))

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """The state dict of `model` with averaged parameters: what a checkpoint holds."""
        return {**model.state_dict(), **self._average}

    def state_dict(self) -> dict[str, Any]:
        """{"step": int, "average": {name: tensor}}, for exact resume."""
        average = {name: value.clone() for name, value in self._average.items()}
        return {"step": self.step, "average": average}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`; raises ValueError for another model's state."""
        average: Mapping[str, Tensor] = state["average"]
        wanted = {name: tuple(p.shape) for name, p in self._average.items()}
        if (got := {name: tuple(p.shape) for name, p in average.items()}) != wanted:
            differing = sorted(dict(wanted.items() ^ got.items()))
            raise ValueError(
                f"The averaged weights are of another model; they differ in {differing}. "
                "Resume with the configuration of the run's checkpoint."
            )
        for name, value in self._average.items():
            value.copy_(average[name])
        self.step = int(state["step"])
