"""A controller in simulation: one tick at a time, with a delay that is chosen, not measured."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data.build import build
from data.spec import DataSpec, Horizons, Obs
from deploy.chunk import ActionChunk
from deploy.controllers.base import Controller
from deploy.motion import Executed
from deploy.seam import Seam, SeamSettings
from envs.history import ObsHistory
from policy.allocator import keep_freed_memory
from policy.export import load_for_acting

WARM_UPS = 3


class LockstepAgent:
    """Follows `envs.evaluate.Agent`.

    With a delay of d ticks the chunk computed from the observation at tick k can be used from tick
    k + d on, with its action d; the older chunk goes on until then, and before the first one the
    tool stands still. `seam` says how one chunk takes over from another.
    """

    def __init__(
        self,
        controller: Controller,
        spec: DataSpec,
        horizons: Horizons,
        delay: int = 0,
        seam: SeamSettings | None = None,
    ) -> None:
        if delay < 0:
            raise ValueError(f"delay must be 0 or more ticks, got {delay}.")
        self.controller, self.spec, self.delay = controller, spec, delay
        self._history = ObsHistory(spec, horizons)
        self._seam = Seam(spec.action, seam)
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Start an episode: no history, no chunk, noise from `seed`."""
        self.controller.reset(seed)
        self._history.reset()
        self._seam.reset()
        self._tick = 0
        self._chunk: ActionChunk | None = None
        self._action = self.spec.action.still
        self.executed: list[Executed] = []
        self._coming: deque[tuple[int, ActionChunk]] = deque()  # (usable from tick, chunk)
        self._stats: dict[str, list[float]] = {
            name: [] for name in ("tick_s", "encode_s", "solve_s", "nfe", "is_plan")
        }

    def act(self, raw_obs: Obs, stamp: float) -> NDArray[np.float32]:
        """Action (A,) for this tick; raises SpecError for an observation that does not fit."""
        started = time.perf_counter()
        self._history.push(raw_obs)
        windowed = self._history.windowed(copy=False)
        chunk = self.controller.update(windowed, stamp, self.delay / self.spec.rate_hz)
        self._note(time.perf_counter() - started)
        self._coming.append((self._tick + self.delay, chunk))
        while self._coming and self._coming[0][0] <= self._tick:
            self._chunk = self._seam.enter(self._coming.popleft()[1], stamp)
        self._tick += 1
        self._action = self._at(stamp)
        self.executed.append(Executed(stamp, self._chunk, self._action))
        return self._action.astype(np.float32)

    def _at(self, stamp: float) -> NDArray[np.float64]:
        """The chunk's action; where it has run out, no motion and the same discrete actions."""
        chunk = self._chunk
        if chunk is not None and chunk.remaining(stamp) > 0:
            return chunk.at(stamp)
        action = self.spec.action.still
        discrete = list(self.spec.action.discrete)
        action[discrete] = self._action[discrete]
        return action

    def stats(self) -> dict[str, list[float]]:
        """One entry a tick: tick_s (the whole update), encode_s, solve_s, nfe, is_plan."""
        return {name: list(values) for name, values in self._stats.items()}

    def _note(self, seconds: float) -> None:
        controller = self.controller
        self._stats["tick_s"].append(seconds)
        self._stats["encode_s"].append(controller.last_seconds["encode"])
        self._stats["solve_s"].append(controller.last_seconds["solve"])
        self._stats["nfe"].append(float(controller.last_nfe))
        self._stats["is_plan"].append(float(controller.last_nfe > 0))


@dataclass(frozen=True)
class AgentFactory:
    """A checkpoint and a controller's config: picklable, makes the same agent in any process."""

    checkpoint: Path
    controller: Mapping[str, Any]
    threads: int = 1
    delay: int = 0
    backend: Mapping[str, Any] = field(default_factory=dict)  # {}: eager torch
    seam: Mapping[str, Any] = field(default_factory=dict)  # of SeamSettings; {}: none

    def __call__(self) -> LockstepAgent:
        """The agent, warmed up; sets this process's torch threads and allocator."""
        keep_freed_memory()
        torch.set_num_threads(self.threads)
        backend = build(self.backend) if self.backend else None
        policy = load_for_acting(self.checkpoint, backend, self.threads)
        controller = build(self.controller, policy=policy)
        seam = SeamSettings(**self.seam)
        agent = LockstepAgent(controller, policy.spec, policy.horizons, self.delay, seam)
        warm_up(agent)
        return agent


def warm_up(agent: LockstepAgent) -> None:
    """Run a few ticks on made-up observations: first calls allocate and choose kernels."""
    spec = agent.spec
    obs = {key: np.zeros(spec.raw_shape(key), value.dtype) for key, value in spec.obs.items()}
    for tick in range(WARM_UPS):
        agent.act(obs, tick / spec.rate_hz)
    agent.reset(0)
