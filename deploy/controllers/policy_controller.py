"""What controllers of one policy have in common: noise, remembered frames, the chunk in force."""

from __future__ import annotations

import torch

from data.spec import DataSpec
from deploy.chunk import ActionChunk
from deploy.controllers.base import NO_COST
from deploy.controllers.exported_frames import remembered_frames
from deploy.controllers.solve import Plan, device_of
from policy.diffusion_policy import DiffusionPolicy


class PolicyController:
    """State that `reset` clears, and the bookkeeping around a plan; `update` is a scheme's own.

    A scheme sets up what its `reset` needs, then calls `__init__` here, which resets.
    """

    def __init__(self, policy: DiffusionPolicy, exec_horizon: int = 1) -> None:
        self.policy, self.exec_horizon = policy, exec_horizon
        self._dt = 1 / policy.spec.rate_hz
        self._device = device_of(policy)
        self._generator = torch.Generator(self._device)
        self._frames = remembered_frames(policy)
        self.reset()

    @property
    def spec(self) -> DataSpec:
        """Observations and actions the policy needs."""
        return self.policy.spec

    def reset(self, seed: int = 0) -> None:
        """Forget the last plan and seed the noise: the next tick plans from noise."""
        self._generator.manual_seed(seed)
        if self._frames is not None:
            self._frames.reset()
        self._chunk: ActionChunk | None = None
        self.last_nfe = 0
        self.last_seconds = dict(NO_COST)

    def _still_good(self, stamp: float) -> ActionChunk | None:
        """The last chunk, at no cost, while fewer than `exec_horizon` of its actions are over."""
        last = self._chunk
        if last is None or last.is_used_up(stamp, self.exec_horizon):
            return None
        self.last_nfe, self.last_seconds = 0, dict(NO_COST)
        return last

    def _made(self, plan: Plan, stamp: float) -> ActionChunk:
        """The new chunk from `stamp` on, and what it cost."""
        self.last_nfe, self.last_seconds = plan.nfe, plan.seconds
        self._chunk = ActionChunk(plan.actions, stamp, self._dt)
        return self._chunk
