"""Real-time chunking by training: a new chunk goes on from the actions executed meanwhile."""

from __future__ import annotations

import torch
from torch import Tensor

from data.spec import Obs
from deploy.chunk import ActionChunk
from deploy.controllers.chunks_in_force import ChunksInForce
from deploy.controllers.policy_controller import PolicyController
from deploy.controllers.solve import Plan
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


class TrainedRTCController(PolicyController):
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
        self._sampler = DDIM() if sampler is None else sampler
        self._executed = ChunksInForce()
        super().__init__(policy, exec_horizon)

    def reset(self, seed: int = 0) -> None:
        """Forget all chunks and seed the noise."""
        super().reset(seed)
        self._executed.reset()

    def update(self, obs: Obs, stamp: float, delay: float = 0.0) -> ActionChunk:
        """A new chunk from `stamp` on if `exec_horizon` ticks have passed, else the last."""
        if (kept := self._still_good(stamp)) is not None:
            return kept
        plan = self._plan(obs, stamp, self._executed.covered(delay, self._dt, self._max_delay))
        chunk = self._made(plan, stamp)
        self._executed.add(chunk, stamp + delay)
        return chunk

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
