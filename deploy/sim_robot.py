"""A gymnasium environment as a robot: simulated time follows the clock, tick by tick."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from data.rotation import apply_increment, increment_between
from data.spec import DataSpec, Obs
from deploy.clock import Clock, SimClock
from deploy.robot_io import STAND_STILL
from envs.base import data_spec

EDGE = 1e-6  # ticks; a command at the very end of a tick belongs to the next


class SimRobot:
    """RobotIO over an environment, in lock-step with `clock`.

        clock     |---- tick 0 ----|---- tick 1 ----|
        command    a  a  a  a  a    a  a  ...            composed into one increment per tick
        observe  obs0            obs1                    steps the environment for each whole tick

    `observe` simulates, `command` only notes: a command loop never waits for a renderer. After the
    episode's end there is nothing new to observe.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], clock: Clock | None = None) -> None:
        self._env = env
        self._clock = clock or SimClock()
        self._spec = data_spec(env)
        self._tick = 1 / self._spec.rate_hz
        self._lock = threading.Lock()
        # A graphics context belongs to one thread; reset and observe are called from several.
        self._simulator = ThreadPoolExecutor(1, thread_name_prefix="simulator")
        self._closed = False
        self.reset(0)

    @property
    def spec(self) -> DataSpec:
        """The environment's spec."""
        return self._spec

    def reset(self, seed: int) -> None:
        """Start episode `seed` now."""
        obs, self.info = self._simulator.submit(self._env.reset, seed=seed).result()
        with self._lock:
            self._start = self._clock.now()
            self._T_tick: dict[int, NDArray[np.float64]] = {}  # tick -> composed increment (4, 4)
        self._ticks_done = 0
        self._new: Obs | None = obs
        self.done = False

    def observe(self) -> tuple[Obs, float] | None:
        """The next tick's observation with the stamp at which it was true, or None."""
        if self._new is None and not self._step():
            return None
        obs, self._new = self._new, None
        assert obs is not None
        return obs, self._start + self._ticks_done * self._tick

    def command(self, action: NDArray[np.floating], duration: float) -> None:
        """Add the increment to those of the current tick."""
        if not duration > 0:
            raise ValueError(f"a command needs a duration above 0 s, got {duration}.")
        with self._lock:
            tick = self._current_tick()
            T_so_far = self._T_tick.get(tick, np.eye(4))
            self._T_tick[tick] = apply_increment(T_so_far, np.asarray(action, np.float64))

    def hold(self) -> None:
        """Drop what was commanded for the current tick."""
        with self._lock:
            self._T_tick.pop(self._current_tick(), None)

    def close(self) -> None:
        """Close the environment."""
        if not self._closed:
            self._closed = True
            self._simulator.submit(self._env.close).result()
            self._simulator.shutdown()

    def _current_tick(self) -> int:
        return int((self._clock.now() - self._start) / self._tick + EDGE)

    def _step(self) -> bool:
        """Simulate one tick if it is over; False if it is not."""
        with self._lock:
            if self.done or self._current_tick() <= self._ticks_done:
                return False
            T_tick = self._T_tick.pop(self._ticks_done, None)
        action = STAND_STILL if T_tick is None else increment_between(np.eye(4), T_tick)
        # A late command lands in the next tick, whose sum may then exceed what one tick can do.
        bounds = self._spec.action
        action = np.clip(action, bounds.low, bounds.high).astype(np.float32)
        stepped = self._simulator.submit(self._env.step, action).result()
        self._new, _, terminated, truncated, self.info = stepped
        self._ticks_done += 1
        self.done = terminated or truncated
        return True
