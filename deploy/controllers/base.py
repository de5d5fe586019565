"""What a controller is."""

from __future__ import annotations

from typing import Protocol

from data.spec import DataSpec, Horizons, Obs
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

    def update(self, obs: Obs, stamp: float, delay: float = 0.0) -> ActionChunk:
        """The chunk whose action i is for `stamp` + i dt [s], when the windowed `obs` was made.

        `delay` [s] is how long after `stamp` it is expected to come into force; what it says about
        the time before that is never executed, the chunk before it is.
        """
        ...


def check_exec_horizon(exec_horizon: int, horizons: Horizons) -> None:
    """Raise ValueError unless a chunk has so many actions."""
    if not 1 <= exec_horizon <= horizons.pred:
        raise ValueError(
            f"exec_horizon {exec_horizon} must be in 1..{horizons.pred}, the number of actions the "
            "policy predicts."
        )
