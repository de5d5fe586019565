"""An in-memory robot that remembers its commands, and a controller of constant speed."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.spec import DataSpec, Horizons, Obs
from deploy.chunk import ActionChunk
from deploy.clock import MonotonicClock
from deploy.controllers.base import NO_COST
from deploy.robot_io import STAND_STILL
from deploy.safety import SafetyLayer, SafetyLimits
from deploy.sim_robot import SimRobot
from tests.tiny_env import TINY_SPEC, tiny_env

HORIZONS = Horizons(obs=2, pred=8, window=16)
DX = 0.005


class ListeningRobot(SimRobot):
    """A SimRobot in real time that remembers what it was told."""

    def __init__(self, broken_after: int | None = None) -> None:
        self.commands: list[NDArray[Any]] = []
        self.holds = 0
        self._broken_after, self._observed = broken_after, 0
        super().__init__(tiny_env()(), MonotonicClock())

    def observe(self) -> tuple[Obs, float] | None:
        seen = super().observe()
        if seen is None:
            return None
        self._observed += 1
        if self._broken_after is not None and self._observed > self._broken_after:
            seen[0]["goal"] = np.full(2, np.nan, np.float32)
        return seen

    def command(self, action: NDArray[np.floating], duration: float) -> None:
        self.commands.append(np.array(action))
        self.holds = 0
        super().command(action, duration)

    def hold(self) -> None:
        self.holds += 1
        super().hold()


class SteadyController:
    """Always the same speed along x; takes `seconds` for it, and may fail at an update."""

    spec: DataSpec = TINY_SPEC

    def __init__(self, seconds: float = 0.0, fail_at: int | None = None) -> None:
        self._seconds, self._fail_at = seconds, fail_at
        self.resets = self.updates = 0
        self.reset()

    def reset(self, seed: int = 0) -> None:
        self.last_nfe, self.last_seconds = 1, dict(NO_COST)
        self.resets += 1

    def update(self, obs: Obs, stamp: float, delay: float = 0.0) -> ActionChunk:
        time.sleep(self._seconds)
        self.updates += 1
        if self.updates == self._fail_at:
            raise ArithmeticError("the solver has diverged")
        actions = np.tile(STAND_STILL, (8, 1))
        actions[:, 0] = DX
        return ActionChunk(actions, stamp, 0.1)


def safety(enabled: bool = True, limits: SafetyLimits | None = None) -> SafetyLayer:
    layer = SafetyLayer(TINY_SPEC, limits)
    layer.enable(enabled)
    return layer
