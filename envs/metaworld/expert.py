"""Meta-World's scripted experts, with noise so that demonstrations also correct errors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from metaworld.policies import ENV_POLICY_MAP

from data.spec import Obs
from envs.base import ExpertAction
from envs.metaworld.tasks import VERSION

MOTION = slice(0, 3)

# The experts are proportional controllers that count on Meta-World's clipping.
warnings.filterwarnings("ignore", message=r"Constant\(s\) may be too high", module="metaworld")


class MetaWorldExpert:
    """Follows `envs.base.Expert`, for whichever task `info["task"]` names.

    Args:
        noise: deviation of what is added to each executed motion [cm per tick]; the stored action
            is the clean one (DART, Laskey et al. 2017).
    """

    def __init__(self, noise: float = 0.1) -> None:
        if noise < 0:
            raise ValueError(f"noise must be 0 or more, got {noise}.")
        self._noise = noise
        self._scripts: dict[str, Any] = {}
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Start an episode; the noise comes from `seed`."""
        self._rng = np.random.default_rng([seed, 0x9E3779B9])

    def act(self, obs: Obs, info: dict[str, Any]) -> ExpertAction:
        """What the script does in `info["state"]`."""
        task = info["task"]
        if task not in self._scripts:
            script: Any = ENV_POLICY_MAP[task + VERSION]  # Typed as the abstract class.
            self._scripts[task] = script()
        action = self._scripts[task].get_action(info["state"])
        clean = np.clip(np.asarray(action, np.float32), -1.0, 1.0)
        executed = clean.copy()
        executed[MOTION] += self._rng.normal(0.0, self._noise, 3).astype(np.float32)
        return ExpertAction(clean, executed=np.clip(executed, -1.0, 1.0))
