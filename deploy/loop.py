"""Two threads: one plans as fast as it can, one commands the robot at its own rate."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from data.spec import Horizons, Obs
from deploy.chunk import ActionChunk
from deploy.clock import Clock, MonotonicClock
from deploy.controllers.base import Controller
from deploy.latency import LatencyWindow
from deploy.placement import Placement, pin_thread
from deploy.robot_io import RobotIO
from deploy.safety import SafetyLayer
from deploy.seam import Seam, SeamSettings
from envs.history import ObsHistory

LATENCIES_KEPT = 100_000
PLANS_UNDER_WAY = 64  # updates that a plan may be under way for, in which its start is remembered


@dataclass(frozen=True)
class LoopStats:
    """What a run of the loop did; a miss is a plan later than one tick after its observation.

    `latency_s` is that of the controller alone, `reaction_s` from an observation to the first
    command that carries its plan; a superseded plan was replaced before a command carried it.
    """

    latency_s: list[float]
    reaction_s: list[float]
    nfe: list[int]
    misses: int
    commands: int
    overruns: int
    superseded: int
    holds: dict[str, int] = field(default_factory=dict)
    clamps: dict[str, int] = field(default_factory=dict)


class RealTimeLoop:
    """Runs `controller` on `robot` in wall-clock time, until `stop` or an error in a thread.

        planner                            command loop
          obs = robot.observe()              chunk = the newest
          chunk = controller.update(obs,     safety.check: limits chunk.at(now) * (period / dt)
              stamp, expected delay)         robot.command, or robot.hold

    A chunk counts from its observation's stamp. It enters as soon as it is there, with the first
    action that can still be executed, and so what has been consumed is known and not assumed.
    `seam` says how it takes over from the chunk before it.

    Whatever ends a thread ends both, and the robot holds. `stop` raises the thread's error.
    """

    def __init__(
        self,
        robot: RobotIO,
        controller: Controller,
        safety: SafetyLayer,
        horizons: Horizons,
        command_rate_hz: float = 50.0,
        clock: Clock | None = None,
        pin: Placement | None = None,
        seam: SeamSettings | None = None,
    ) -> None:
        robot.spec.check_provides(controller.spec, "the policy")
        if command_rate_hz < controller.spec.rate_hz:
            raise ValueError(
                f"command_rate_hz {command_rate_hz} must be at least the policy's "
                f"{controller.spec.rate_hz} Hz, or actions are skipped."
            )
        self.robot, self.controller, self.safety = robot, controller, safety
        self.latency = LatencyWindow()
        self._clock = clock or MonotonicClock()
        self._pin = pin or Placement()
        self._period = 1 / command_rate_hz
        self._tick = 1 / controller.spec.rate_hz
        self._history = ObsHistory(controller.spec, horizons)
        self._seam = Seam(controller.spec.action, seam)
        self._chunk: ActionChunk | None = None  # in force; replaced as a whole, never changed
        self._commanded: ActionChunk | None = None
        self._stopping = threading.Event()
        self._threads: list[Future[None]] = []
        self._latency_s: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._reaction_s: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._nfe: deque[int] = deque(maxlen=LATENCIES_KEPT)
        # (stamp of an observation, when its update began)
        self._begun: deque[tuple[float, float]] = deque(maxlen=PLANS_UNDER_WAY)
        self._misses = self._commands = self._overruns = self._superseded = 0

    def start(self, seed: int = 0) -> None:
        """Reset the controller and start both threads; the robot moves once safety is enabled."""
        if self._threads:
            raise ValueError("the loop runs already; stop() it first.")
        self._stopping.clear()
        self._chunk = None
        self._history.reset()
        pool = ThreadPoolExecutor(2, thread_name_prefix="prise")
        self._threads = [pool.submit(self._plan, seed), pool.submit(self._command)]
        pool.shutdown(wait=False)

    @property
    def running(self) -> bool:
        """True from `start` until `stop`, or until a thread has ended by an error."""
        return bool(self._threads) and not self._stopping.is_set()

    def stop(self) -> LoopStats:
        """End both threads, leave the robot holding; raises the first error a thread ended with."""
        self._stopping.set()
        return self.join()

    def join(self, timeout: float | None = None) -> LoopStats:
        """Wait until the threads have ended [s]; raises what they ended with, or TimeoutError."""
        if wait(self._threads, timeout).not_done:
            raise TimeoutError(f"the loop still runs after {timeout} s; call stop().")
        threads, self._threads = self._threads, []
        for thread in threads:
            thread.result()
        return self.stats()

    def stats(self) -> LoopStats:
        """Counts and latencies so far."""
        return LoopStats(
            list(self._latency_s),
            list(self._reaction_s),
            list(self._nfe),
            self._misses,
            self._commands,
            self._overruns,
            self._superseded,
            dict(self.safety.holds),
            dict(self.safety.clamps),
        )

    def _plan(self, seed: int) -> None:
        """Planner thread."""
        was_moving = False
        try:
            pin_thread(self._pin.plan)
            self._restart(seed)
            while not self._stopping.is_set():
                stamp = self._newest()
                if stamp is None:
                    self._clock.sleep_until(self._clock.now() + self._period / 4)
                    continue
                moving = self.safety.moving
                if moving and not was_moving:
                    self._restart(seed)  # plans made while standing still were never executed
                was_moving = moving
                # It plans even then: the first solves are slow, and are better done before.
                chunk = self._planned(self._history.windowed(copy=False), stamp)
                if moving:
                    self._publish(chunk)
        finally:
            self._stopping.set()

    def _restart(self, seed: int) -> None:
        self._chunk = None
        self._seam.reset()
        self.controller.reset(seed)

    def _newest(self) -> float | None:
        """Push all that is new into the history; the newest stamp, or None if nothing is."""
        newest = None
        while (seen := self.robot.observe()) is not None and not self._stopping.is_set():
            obs, newest = seen
            self.robot.spec.check_obs(obs)
            self.safety.sense(obs, newest)
            self._history.push(obs)
        return newest

    def _planned(self, windowed: Obs, stamp: float) -> ActionChunk:
        started = self._clock.now()
        delay = started + self.latency.p95 - stamp
        self._begun.append((stamp, started))
        chunk = self.controller.update(windowed, stamp, delay)
        done = self._clock.now()
        self._latency_s.append(done - started)
        self._nfe.append(self.controller.last_nfe)
        if self.controller.last_nfe:
            # A plan may have been begun in an earlier update than it is ready in.
            begun = next((at for seen, at in reversed(self._begun) if seen == chunk.t0), started)
            self.latency.add(done - begun)
        if done - stamp > self._tick:
            self._misses += 1
        return chunk

    def _publish(self, chunk: ActionChunk) -> None:
        last, chunk = self._chunk, self._seam.enter(chunk, self._clock.now())
        if chunk is not last:
            self._superseded += last is not None and last is not self._commanded
            self._chunk = chunk

    def _command(self) -> None:
        """Command thread."""
        due = self._clock.now()
        try:
            pin_thread(self._pin.command)
            while not self._stopping.is_set():
                self._command_once(self._clock.now())
                due += self._period
                if (now := self._clock.now()) > due:
                    self._overruns += 1
                    due = now
                self._clock.sleep_until(due)
        finally:
            self._stopping.set()
            self.robot.hold()

    def _command_once(self, now: float) -> None:
        chunk, action = self._chunk, None
        if chunk is None:
            self.safety.holds["no chunk"] += 1
        else:
            action = self.safety.check(
                chunk.at(now), duration=self._period, now=now, valid_until=chunk.end
            )
        if action is None:
            self.robot.hold()
        else:
            self.robot.command(action, self._period)
            if chunk is not self._commanded and chunk is not None:
                self._commanded = chunk
                self._reaction_s.append(self._clock.now() - chunk.t0)
        self._commands += 1
