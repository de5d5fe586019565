"""Real-time chunking: what will be executed anyway is frozen, the rest of the plan is inpainted."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from data.spec import Obs
from deploy.chunk import ROUNDING, ActionChunk
from deploy.controllers.base import check_exec_horizon
from deploy.controllers.policy_controller import PolicyController
from deploy.controllers.solve import Plan, solve
from policy.backends.base import ExportedDenoiser
from policy.diffusion_policy import DiffusionPolicy
from policy.guidance import named_guidance, overlap_weights
from policy.samplers.base import Sampler, level_list
from policy.samplers.ddim import DDIM


class RTCController(PolicyController):
    """Black et al. (2025), "Real-Time Execution of Action Chunking Flow Policies", algorithm 1.

        last plan            | c c c c c c |           c: consumed when the new one is asked for
        new plan          | f f | o o o o | n n n n |
                             delay  overlap   new

    A plan of `num_steps` NFE from noise every `exec_horizon` ticks. Its first actions f, those of
    the expected delay, are those of the last plan; the overlap o is bound to it less and less.
    Without a last plan (first tick, or it has run out) nothing is frozen.
    """

    def __init__(
        self,
        policy: DiffusionPolicy,
        mode: str = "identity",
        schedule: str = "exp",
        max_weight: float = 5.0,
        num_steps: int = 5,
        exec_horizon: int = 2,
        sampler: Sampler | None = None,
    ) -> None:
        """`mode` is one of `policy.guidance.MODES`; `sampler` None is DDIM."""
        horizon = policy.horizons.pred
        check_exec_horizon(exec_horizon, policy.horizons)
        level_list(num_steps, schedule=policy.schedule)  # a wrong number fails here
        overlap_weights(horizon, 0, horizon, schedule)  # so does an unknown name
        guidance = named_guidance(mode, max_weight)
        if guidance.needs_gradients:
            _check_differentiable(policy, mode)
        self._decay, self._guidance = schedule, guidance
        self._cold: dict[str, Any] = {"num_steps": num_steps, "sampler": sampler or DDIM()}
        super().__init__(policy, exec_horizon)

    def update(self, obs: Obs, stamp: float, delay: float = 0.0) -> ActionChunk:
        """A new chunk from `stamp` on if `exec_horizon` ticks have passed, else the last."""
        frozen = max(0, math.ceil(delay / self._dt - ROUNDING))
        if self.exec_horizon + frozen > self.policy.horizons.pred:
            raise ValueError(
                f"exec_horizon {self.exec_horizon} and a delay of {frozen} actions go beyond the "
                f"{self.policy.horizons.pred} the policy predicts: the robot would run out of "
                "actions. Lower exec_horizon or the delay (fewer num_steps)."
            )
        return self._still_good(stamp) or self._made(self._plan(obs, stamp, frozen), stamp)

    def _plan(self, obs: Obs, stamp: float, frozen: int) -> Plan:
        last = self._chunk
        left = 0 if last is None else math.floor(last.remaining(stamp) / self._dt + ROUNDING)
        if last is None or left == 0:
            return solve(self.policy, obs, self._generator, self._cold, self._frames)
        committed = last.actions_from(stamp)
        frozen = min(frozen, left)
        prior = torch.from_numpy(committed.astype(np.float32))[None].to(self._device)
        guided = {
            "prior": prior,
            "guidance": self._guidance,
            "weights": overlap_weights(len(committed), frozen, left, self._decay),
        }
        plan = solve(self.policy, obs, self._generator, self._cold | guided, self._frames)
        actions = plan.actions.copy()
        # What is executed meanwhile is not a matter of how well the guidance works.
        actions[:frozen] = committed[:frozen]
        return replace(plan, actions=actions)


def _check_differentiable(policy: DiffusionPolicy, mode: str) -> None:
    if isinstance(policy.denoiser, ExportedDenoiser):
        raise ValueError(
            f"mode {mode!r} differentiates the network, which an exported one cannot; "
            "choose mode=repaint, mode=identity, or backend=eager."
        )
    if any(weight.is_inference() for weight in policy.parameters()):
        raise ValueError(
            f"mode {mode!r} differentiates the network, whose weights were made in "
            "torch.inference_mode(); load the policy outside of it."
        )
