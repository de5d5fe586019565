"""Real-time chunking by training: a new chunk goes on from the actions executed meanwhile."""

from __future__ import annotations

import torch
from torch import Tensor

from data.spec import DataSpec, Obs
from deploy.chunk import ROUNDING, ActionChunk
from deploy.controllers.base import NO_COST
from deploy.controllers.executed import Executed
from deploy.controllers.frame_cache import FrameCache
from deploy.controllers.solve import Plan, device_of
from deploy.controllers.solve_path import (
    check_exec_horizon,
    in_network_units,
    solve_path,
    trained_with,
)
from policy.diffusion_policy import DiffusionPolicy
from policy.level_plan import PrefixLevels
from policy.samplers.base import Sampler, level_values
from policy.samplers.ddim import DDIM
from policy.warm_start import ReNoised


class TrainedRTCController:
    """Chunks with a clean prefix (Black et al. 2025, arXiv 2512.05964).

        executed while planning   [p p p]
        levels                    [0 0 0 l l l l l]     l: start_level -> 0 in `nfe` steps

    The prefix are the actions that the delay covers, rounded up. Of a delay beyond the policy's
    `max_delay` it holds only the first `max_delay`, with a warning: what is between them and the
    first executed action is then drawn freely. A tick without a chunk in force, at the start of an
    episode, ends the prefix.
    """

    def __init__(
        self,
        policy: DiffusionPolicy,
        nfe: int = 10,
        start_level: float = 1.0,
        cold_steps: int = 10,
        exec_horizon: int = 1,
        sampler: Sampler | None = None,
    ) -> None:
        """Below 1, `start_level` is where the last chunk is re-noised to; `sampler` None: DDIM."""
        self._max_delay = trained_with(policy, PrefixLevels, "rtc_trained").max_delay
        check_exec_horizon(exec_horizon, policy.horizons.pred, "the actions the policy predicts")
        grid = policy.schedule.num_levels
        self._warm = level_values(nfe, start_level, grid)
        self._cold = level_values(cold_steps, 1.0, grid)
        self.policy, self.exec_horizon = policy, exec_horizon
        self._sampler = DDIM() if sampler is None else sampler
        self._dt = 1 / policy.spec.rate_hz
        self._generator = torch.Generator(device_of(policy))
        self._frames = FrameCache(policy) if FrameCache.helps(policy) else None
        self._executed = Executed()
        self.reset()

    @property
    def spec(self) -> DataSpec:
        """Observations and actions the policy needs."""
        return self.policy.spec

    def reset(self, seed: int = 0) -> None:
        """Forget all chunks and seed the noise."""
        self._generator.manual_seed(seed)
        if self._frames is not None:
            self._frames.reset()
        self._executed.reset()
        self._chunk: ActionChunk | None = None
        self.last_nfe = 0
        self.last_seconds = dict(NO_COST)

    def update(self, obs: Obs, stamp: float, delay: float = 0.0) -> ActionChunk:
        """A new chunk from `stamp` on if `exec_horizon` ticks have passed, else the last."""
        last = self._chunk
        if last is not None and (stamp - last.t0) / last.dt < self.exec_horizon - ROUNDING:
            self.last_nfe, self.last_seconds = 0, dict(NO_COST)
            return last
        plan = self._plan(obs, stamp, self._executed.covered(delay, self._dt, self._max_delay))
        self.last_nfe, self.last_seconds = plan.nfe, plan.seconds
        self._chunk = ActionChunk(plan.actions, stamp, self._dt)
        self._executed.add(self._chunk, stamp + delay)
        return self._chunk

    def _plan(self, obs: Obs, stamp: float, ticks: int) -> Plan:
        x, levels = self._first(stamp)
        prefix = self._executed.known(stamp, self._dt, ticks)
        if clean := len(prefix):
            x[:, :clean] = in_network_units(self.policy, prefix)
        tail = self.policy.horizons.pred - clean
        path = [(0.0,) * clean + (level,) * tail for level in levels]
        begin = {"x": x, "path": path, "sampler": self._sampler, "generator": self._generator}
        return solve_path(self.policy, obs, begin, self._frames)[0]

    def _first(self, stamp: float) -> tuple[Tensor, tuple[float, ...]]:
        """The first iterate (1, Tp, A) before its prefix is set, and its levels down to 0."""
        policy, last = self.policy, self._chunk
        if last is None or last.remaining(stamp) == 0:
            shape = (1, policy.horizons.pred, policy.spec.action.dim)
            noise = torch.randn(shape, generator=self._generator, device=self._generator.device)
            return noise, self._cold
        prior = in_network_units(policy, last.actions_from(stamp))
        return ReNoised()(prior, self._warm[0], policy.schedule, self._generator), self._warm
