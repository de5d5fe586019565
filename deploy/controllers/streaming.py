"""Streaming: a buffer of actions that are the cleaner the nearer they are in time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from data.spec import Obs
from deploy.chunk import ActionChunk
from deploy.controllers.chunks_in_force import ChunksInForce
from deploy.controllers.policy_controller import PolicyController
from deploy.controllers.solve_path import (
    check_exec_horizon,
    in_network_units,
    solve_path,
    trained_with,
)
from policy.diffusion_policy import DiffusionPolicy
from policy.level_path import Levels, raise_levels
from policy.level_plan import RisingLevels, rising_ramp
from policy.samplers.base import Sampler
from policy.samplers.ddim import DDIM
from policy.schedule import Schedule


@dataclass(frozen=True, eq=False)
class Buffer:
    """Actions (1, Tp, A) in network units, each with the level it is at, and their estimates."""

    x: Tensor
    x0: Tensor
    levels: Levels

    def rolled(self, count: int, generator: Generator) -> Buffer:
        """Without its first `count` actions, and with noise behind the last."""
        count = min(count, len(self.levels))
        noise = torch.empty_like(self.x[:, :count]).normal_(generator=generator)
        x = torch.cat([self.x[:, count:], noise], 1)
        x0 = torch.cat([self.x0[:, count:], self.x0[:, -1:].expand(-1, count, -1)], 1)
        return Buffer(x, x0, self.levels[count:] + (1.0,) * count)

    def frozen(self, known: Tensor, count: int) -> Buffer:
        """With the first `count` clean: as `known`, then as they are, or as far as estimated."""
        noisy = torch.tensor(self.levels[:count], device=self.x.device)[:, None] > 0
        x = self.x.clone()
        x[:, :count] = torch.where(noisy, self.x0[:, :count], self.x[:, :count])
        x[:, : known.shape[1]] = known
        return Buffer(x, self.x0, (0.0,) * count + self.levels[count:])

    def raised(self, levels: Levels, schedule: Schedule, generator: Generator) -> Buffer:
        """At `levels`, nowhere below its own."""
        x = raise_levels(self.x, self.levels, levels, schedule, generator)
        return Buffer(x, self.x0, levels)


class StreamingController(PolicyController):
    """Streaming Diffusion Policy (Høeg et al. 2024, arXiv 2406.04806).

        last plan   [0 0 .25 .25 .5 .5 .75 .75]
        roll            [.25 .25 .5 .5 .75 .75 | 1 1]     by the time that has passed
        `nfe` steps     [0 0 .25 .25 .5 .5 .75 .75]       the first block can be executed

    Where time has not passed in whole blocks, a block takes the level of its noisiest action: the
    others get noise. A delay freezes the blocks that it covers; the first one behind them is made
    clean, and levels rise more steeply in the rest. Of a delay beyond the policy's `max_delay` only
    that is frozen, with a warning, and actions are executed before they are clean.
    """

    def __init__(
        self,
        policy: DiffusionPolicy,
        nfe: int = 1,
        exec_horizon: int = 1,
        sampler: Sampler | None = None,
    ) -> None:
        """`nfe` is for each block that time has taken away; `sampler` None is DDIM."""
        self._trained = trained_with(policy, RisingLevels, "streaming")
        self._block = self._trained.block
        self._blocks, self._grid = policy.horizons.pred // self._block, policy.schedule.num_levels
        check_exec_horizon(exec_horizon, self._block, "the actions of a block (levels.block)")
        most = self._grid // self._blocks
        if not 1 <= nfe <= most:
            raise ValueError(
                f"nfe {nfe} must be in 1..{most}: {self._blocks} blocks share {self._grid} levels."
            )
        self._nfe = nfe
        self._sampler = DDIM() if sampler is None else sampler
        self._executed = ChunksInForce()
        super().__init__(policy, exec_horizon)

    def reset(self, seed: int = 0) -> None:
        """Empty the buffer and seed the noise: the next tick plans from noise."""
        super().reset(seed)
        self._executed.reset()
        self._buffer: Buffer | None = None

    def update(self, obs: Obs, stamp: float, delay: float = 0.0) -> ActionChunk:
        """A new chunk from `stamp` on if `exec_horizon` ticks have passed, else the last."""
        if (kept := self._still_good(stamp)) is not None:
            return kept
        ticks = self._executed.covered(delay, self._dt, self._trained.max_delay)
        begin, path = self._first(stamp, ticks)
        options = {"path": path, "sampler": self._sampler, "generator": self._generator}
        plan, state = solve_path(
            self.policy, obs, {"x": begin.x, "x0": begin.x0, **options}, self._frames
        )
        self.last_nfe, self.last_seconds = plan.nfe, plan.seconds
        self._buffer = Buffer(state.x, state.x0, state.levels)
        self._chunk = ActionChunk(plan.actions, stamp, self._dt)
        self._executed.add(self._chunk, stamp + delay)
        return self._chunk

    def _first(self, stamp: float, ticks: int) -> tuple[Buffer, list[Levels]]:
        """The buffer at `stamp`, and its levels until the first block behind the delay is clean."""
        buffer = self._rolled_to(stamp)
        known = self._executed.known(stamp, self._dt, ticks)
        frozen = math.ceil(len(known) / self._block)
        if frozen:
            clean = in_network_units(self.policy, known)
            buffer = buffer.frozen(clean, frozen * self._block)
        stages = next(
            stage
            for stage in range(1, self._blocks - frozen + 1)
            if _is_below(buffer.levels, self._ramp(stage, frozen))
        )
        steps = stages * self._nfe
        path = [self._ramp(stages - k / self._nfe, frozen) for k in range(steps + 1)]
        return buffer.raised(path[0], self.policy.schedule, self._generator), path

    def _rolled_to(self, stamp: float) -> Buffer:
        last, horizon = self._chunk, self.policy.horizons.pred
        if self._buffer is None or last is None:
            shape = (1, horizon, self.policy.spec.action.dim)
            zeros = torch.zeros(shape, device=self._generator.device)
            return Buffer(zeros, zeros, (0.0,) * horizon).rolled(horizon, self._generator)
        passed = round((stamp - last.t0) / self._dt)
        return self._buffer.rolled(passed, self._generator)

    def _ramp(self, stage: float, frozen: int) -> Levels:
        ramp = rising_ramp(stage, frozen, self._blocks, self._grid)
        return tuple(level for level in ramp for _ in range(self._block))


def _is_below(levels: Levels, others: Levels) -> bool:
    return all(level <= other for level, other in zip(levels, others, strict=True))
