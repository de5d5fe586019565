"""Plan from noise, execute the first part of the plan, plan again."""

from __future__ import annotations

from typing import Any

import torch

from data.spec import DataSpec, Obs
from deploy.chunk import ActionChunk
from deploy.controllers.base import NO_COST, check_exec_horizon
from deploy.controllers.budget import StepBudget
from deploy.controllers.punctual import PunctualSolve
from deploy.controllers.solve import Plan, device_of, solve
from policy.diffusion_policy import DiffusionPolicy
from policy.samplers.base import Sampler, level_list


class ColdController:
    """Receding horizon (Chi et al. 2023): `num_steps` NFE from noise every `exec_horizon` ticks.

    Consumption is measured in time: after a pause the next update plans.
    """

    def __init__(
        self,
        policy: DiffusionPolicy,
        num_steps: int = 10,
        sampler: Sampler | None = None,
        exec_horizon: int | None = 8,
        deadline_ms: float | None = None,
    ) -> None:
        """`sampler` None is the policy's own, `exec_horizon` None all that it predicts.

        With `deadline_ms` updates return in time, with fewer evaluations or the old chunk.
        """
        if exec_horizon is None:
            exec_horizon = policy.horizons.pred
        check_exec_horizon(exec_horizon, policy.horizons)
        level_list(num_steps, schedule=policy.schedule)  # a wrong number fails here
        self.policy = policy
        self.exec_horizon = exec_horizon
        self._dt = 1 / policy.spec.rate_hz
        self._begin: dict[str, Any] = {"num_steps": num_steps, "sampler": sampler}
        self._generator = torch.Generator(device_of(policy))
        self._punctual = None if deadline_ms is None else PunctualSolve(policy.spec, deadline_ms)
        self.reset()

    @property
    def spec(self) -> DataSpec:
        """Observations and actions the policy needs."""
        return self.policy.spec

    def reset(self, seed: int = 0) -> None:
        """Forget the chunk and seed the noise."""
        if self._punctual is not None:
            self._punctual.reset()
        self._generator.manual_seed(seed)
        self._chunk: ActionChunk | None = None
        self.last_nfe = 0
        self.last_seconds = dict(NO_COST)

    def update(self, obs: Obs, stamp: float, delay: float = 0.0) -> ActionChunk:
        """A new chunk from `stamp` on if `exec_horizon` ticks have passed, else the last."""
        if self._punctual is not None:
            chunk = self._punctual.update(obs, stamp, self._plan, self._is_due)
            self.last_nfe = self._punctual.last_nfe
            self.last_seconds = self._punctual.last_seconds
            return chunk
        if self._chunk is not None and not self._is_due(self._chunk, stamp):
            self.last_nfe, self.last_seconds = 0, dict(NO_COST)
            return self._chunk
        plan = self._plan(obs, None, stamp)
        self.last_nfe, self.last_seconds = plan.nfe, plan.seconds
        self._chunk = ActionChunk(plan.actions, stamp, self._dt)
        return self._chunk

    def _plan(
        self,
        obs: Obs,
        last: ActionChunk | None,
        stamp: float,
        budget: StepBudget | None = None,
    ) -> Plan:
        return solve(self.policy, obs, self._generator, self._begin, budget=budget)

    def _is_due(self, chunk: ActionChunk, stamp: float) -> bool:
        return chunk.is_used_up(stamp, self.exec_horizon)
