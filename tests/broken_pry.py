"""The prying task with a sensor that fails in mid-episode."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from data.spec import Obs
from envs.pry.env import PryEnv

FAILS_AT = 3  # [ticks]


class NaNPry(PryEnv):
    """The measured pose is NaN from the third tick on."""

    def step(self, action: NDArray[np.float32]) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        obs, *rest = super().step(action)
        if self.judge.ticks >= FAILS_AT:
            obs["pose"] = np.full_like(obs["pose"], np.nan)
        return obs, *rest  # type: ignore[return-value]  # a starred tuple loses its types


gymnasium.register(id="NaNPry-v0", entry_point="tests.broken_pry:NaNPry")
