"""Real-time iteration: each tick warm-starts the solve from the previous plan, shifted in time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from data.spec import DataSpec, Obs
from deploy.chunk import ActionChunk
from deploy.controllers.base import NO_COST, check_exec_horizon
from deploy.controllers.budget import StepBudget
from deploy.controllers.exported_frames import remembered_frames
from deploy.controllers.punctual import PunctualSolve
from deploy.controllers.refinement import Refinement
from deploy.controllers.solve import Plan, device_of, solve
from policy.backends.base import ExportedDenoiser
from policy.calibration import calibrated_level, read_calibration
from policy.diffusion_policy import DiffusionPolicy
from policy.discrete import Softened, softened
from policy.samplers.base import Sampler, level_list
from policy.samplers.ddim import DDIM
from policy.warm_start import AsIs, ReNoised, Scaled, WarmStart

WARM_STARTS: dict[str, type[WarmStart]] = {
    "as_is": AsIs,
    "scaled": Scaled,
    "renoised": ReNoised,
}


class RTIController:
    """One to a few NFE every `exec_horizon` ticks (after Duan et al. 2025, RTI-DP).

        previous plan --shift to stamp--> prior --to start_level--> x --nfe steps--> new plan

    Without a prior (first tick, or the old plan has run out) it plans from noise in `cold_steps`.
    """

    def __init__(
        self,
        policy: DiffusionPolicy,
        start_level: float | str = 0.3,
        nfe: int = 1,
        warm_start: WarmStart | str = "renoised",
        cold_steps: int = 10,
        sampler: Sampler | None = None,
        exec_horizon: int = 1,
        discrete: str = "none",
        discrete_factor: float = 10.0,
        deadline_ms: float | None = None,
    ) -> None:
        """`sampler` None is DDIM; a name of `WARM_STARTS` or an object is a `warm_start`.

        `start_level` "estimated" is the one in the checkpoint's calibration for this `nfe` and
        `exec_horizon`; `discrete` is what `policy.discrete.soften` does to the prior. With
        `deadline_ms` updates return in time, with fewer evaluations or the old chunk.
        """
        if isinstance(start_level, str):
            calibration = read_calibration(policy)
            start_level = calibrated_level(
                calibration, start_level, str(warm_start), exec_horizon, nfe
            )
        # Levels that do not exist must fail here, not at the second tick of an episode.
        level_list(nfe, start_level, schedule=policy.schedule)
        level_list(cold_steps, schedule=policy.schedule)
        check_exec_horizon(exec_horizon, policy.horizons)
        sampler = DDIM() if sampler is None else sampler
        warm_start = softened(
            named_warm_start(warm_start), policy.spec.action.discrete, discrete, discrete_factor
        )
        self.policy, self.exec_horizon = policy, exec_horizon
        self._dt = 1 / policy.spec.rate_hz
        self._cold: dict[str, Any] = {"num_steps": cold_steps, "sampler": sampler}
        self._warm: dict[str, Any] = {
            "num_steps": nfe,
            "start_level": start_level,
            "warm_start": warm_start,
            "sampler": sampler,
        }
        self._device = device_of(policy)
        self._generator = torch.Generator(self._device)
        self._frames = remembered_frames(policy)
        # The last step of a solve gives x0, whatever the sampler makes of x.
        is_exported = isinstance(policy.denoiser, ExportedDenoiser)
        # The graph takes factors of the prior, not what becomes of its discrete dimensions.
        fits = is_exported and nfe == 1 and not isinstance(warm_start, Softened)
        self._refine = Refinement(policy, start_level, warm_start, self._frames) if fits else None
        self._punctual = None if deadline_ms is None else PunctualSolve(policy.spec, deadline_ms)
        self.reset()

    @property
    def spec(self) -> DataSpec:
        """Observations and actions the policy needs."""
        return self.policy.spec

    def reset(self, seed: int = 0) -> None:
        """Forget the previous plan and seed the noise: the next tick plans from noise."""
        if self._punctual is not None:
            self._punctual.reset()
        self._generator.manual_seed(seed)
        if self._frames is not None:
            self._frames.reset()
        self._chunk: ActionChunk | None = None
        self.last_nfe = 0
        self.last_seconds = dict(NO_COST)

    def update(self, obs: Obs, stamp: float, delay: float = 0.0) -> ActionChunk:
        """A new chunk from `stamp` on if `exec_horizon` ticks have passed, else the last.

        With a deadline, the newest that is ready in time.
        """
        if self._punctual is not None:
            chunk = self._punctual.update(obs, stamp, self._plan, self._is_due)
            self.last_nfe = self._punctual.last_nfe
            self.last_seconds = self._punctual.last_seconds
            return chunk
        if self._chunk is not None and not self._is_due(self._chunk, stamp):
            self.last_nfe, self.last_seconds = 0, dict(NO_COST)
            return self._chunk
        plan = self._plan(obs, self._chunk, stamp)
        self.last_nfe, self.last_seconds = plan.nfe, plan.seconds
        self._chunk = ActionChunk(plan.actions, stamp, self._dt)
        return self._chunk

    def _is_due(self, chunk: ActionChunk, stamp: float) -> bool:
        """Every update plans where one action is executed of each plan."""
        return self.exec_horizon == 1 or chunk.is_used_up(stamp, self.exec_horizon)

    def _plan(
        self,
        obs: Obs,
        last: ActionChunk | None,
        stamp: float,
        budget: StepBudget | None = None,
    ) -> Plan:
        # A plan that has run out says nothing about `stamp`.
        if last is None or last.remaining(stamp) == 0:
            # However long it takes: nothing is in force that it could be late for.
            return solve(self.policy, obs, self._generator, self._cold, self._frames)
        if self._refine is not None:
            return self._refine(obs, last, stamp, self._generator)
        prior = torch.from_numpy(last.actions_from(stamp).astype(np.float32))[None]
        begin = {**self._warm, "prior": prior.to(self._device)}
        return solve(self.policy, obs, self._generator, begin, self._frames, budget)


def named_warm_start(choice: WarmStart | str) -> WarmStart:
    """The warm start called `choice`, or `choice` itself."""
    if not isinstance(choice, str):
        return choice
    if choice not in WARM_STARTS:
        raise ValueError(f"warm start {choice!r} is unknown; known: {sorted(WARM_STARTS)}.")
    return WARM_STARTS[choice]()
