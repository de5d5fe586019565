"""What a controller is."""

from __future__ import annotations

from typing import Protocol

from data.spec import DataSpec, Obs
from deploy.chunk import ActionChunk

NO_COST = {"encode": 0.0, "solve": 0.0}


class Controller(Protocol):
    """Observations to chunks, with memory; `reset` clears it."""

    last_nfe: int
    last_seconds: dict[str, float]

    @property
    def spec(self) -> DataSpec:
        """Observations and actions the controller's policy needs."""
        ...

    def reset(self, seed: int = 0) -> None:
        """Forget the episode and seed the noise."""
        ...

    def update(self, obs: Obs, apply_at: float) -> ActionChunk:
        """The chunk to execute from `apply_at` [s] on, given the windowed observation `obs`."""
        ...
