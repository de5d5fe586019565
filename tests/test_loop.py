"""The real-time loop, in threads and in real time, on an in-memory robot."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from data.spec import DataSpec, Horizons, Obs, SpecError
from deploy.chunk import ActionChunk
from deploy.clock import MonotonicClock
from deploy.controllers.base import NO_COST
from deploy.controllers.rti import RTIController
from deploy.loop import RealTimeLoop
from deploy.placement import Placement
from deploy.robot_io import STAND_STILL
from deploy.safety import SafetyLayer, SafetyLimits
from deploy.seam import SeamSettings
from deploy.sim_robot import SimRobot
from tests.tiny_env import TINY_SPEC, tiny_env
from tests.tiny_policy import TINY_HORIZONS, tiny_policy

HORIZONS = Horizons(obs=2, pred=8, window=16)
DX = 0.005
SIGNS = np.array([[1.0] * 9, [-1.0, 1, 1, 1, 1, 1, 1, 1, 1]])


class ListeningRobot(SimRobot):
    """A SimRobot in real time that remembers what it was told."""

    def __init__(self, broken_after: int | None = None) -> None:
        self.commands: list[NDArray[Any]] = []
        self.holds = 0
        self._broken_after, self._observed = broken_after, 0
        super().__init__(tiny_env()(), MonotonicClock())

    def observe(self) -> tuple[Obs, float] | None:
        seen = super().observe()
        if seen is None:
            return None
        self._observed += 1
        if self._broken_after is not None and self._observed > self._broken_after:
            seen[0]["goal"] = np.full(2, np.nan, np.float32)
        return seen

    def command(self, action: NDArray[np.floating], duration: float) -> None:
        self.commands.append(np.array(action))
        self.holds = 0
        super().command(action, duration)

    def hold(self) -> None:
        self.holds += 1
        super().hold()


class SteadyController:
    """Always the same speed along x; takes `seconds` for it, and may fail at an update."""

    spec: DataSpec = TINY_SPEC

    def __init__(self, seconds: float = 0.0, fail_at: int | None = None) -> None:
        self._seconds, self._fail_at = seconds, fail_at
        self.resets = self.updates = 0
        self.reset()

    def reset(self, seed: int = 0) -> None:
        self.last_nfe, self.last_seconds = 1, dict(NO_COST)
        self.resets += 1

    def update(self, obs: Obs, stamp: float, delay: float = 0.0) -> ActionChunk:
        time.sleep(self._seconds)
        self.updates += 1
        if self.updates == self._fail_at:
            raise ArithmeticError("the solver has diverged")
        actions = np.tile(STAND_STILL, (8, 1))
        actions[:, 0] = DX
        return ActionChunk(actions, stamp, 0.1)


@pytest.fixture
def robot() -> Iterator[ListeningRobot]:
    robot = ListeningRobot()
    yield robot
    robot.close()


def safety(enabled: bool = True, limits: SafetyLimits | None = None) -> SafetyLayer:
    layer = SafetyLayer(TINY_SPEC, limits)
    layer.enable(enabled)
    return layer


def test_commands_come_at_their_rate_and_add_up_to_the_policys_speed(
    robot: ListeningRobot,
) -> None:
    loop = RealTimeLoop(robot, SteadyController(), safety(), HORIZONS, command_rate_hz=50)
    loop.start()
    time.sleep(1.0)
    stats = loop.stop()
    assert 40 <= stats.commands <= 52
    np.testing.assert_allclose([a[0] for a in robot.commands], DX / 5, rtol=1e-6)
    assert 8 <= len(stats.latency_s) <= 11
    assert stats.misses == 0
    assert robot.holds >= 1, "stop() must leave the robot holding"


def test_a_disabled_robot_is_never_commanded_and_enabling_starts_the_controller_afresh(
    robot: ListeningRobot,
) -> None:
    controller, layer = SteadyController(), safety(enabled=False)
    loop = RealTimeLoop(robot, controller, layer, HORIZONS)
    loop.start()
    time.sleep(0.4)
    assert not robot.commands
    resets = controller.resets
    layer.enable(True)
    time.sleep(0.4)
    loop.stop()
    assert robot.commands
    assert controller.resets == resets + 1


def test_a_controllers_error_surfaces_and_the_robot_holds(robot: ListeningRobot) -> None:
    loop = RealTimeLoop(robot, SteadyController(fail_at=3), safety(), HORIZONS)
    loop.start()
    with pytest.raises(ArithmeticError, match="diverged"):
        loop.join(timeout=3.0)
    assert not loop.running
    assert robot.commands
    assert robot.holds >= 1
    commands = len(robot.commands)
    time.sleep(0.1)
    assert len(robot.commands) == commands


def test_a_broken_sensor_ends_the_loop_with_its_name() -> None:
    robot = ListeningRobot(broken_after=2)
    loop = RealTimeLoop(robot, SteadyController(), safety(), HORIZONS)
    loop.start()
    with pytest.raises(SpecError, match="'goal' holds NaN"):
        loop.join(timeout=3.0)
    assert robot.holds >= 1


def test_late_plans_are_misses_while_commands_keep_their_rate(robot: ListeningRobot) -> None:
    loop = RealTimeLoop(robot, SteadyController(seconds=0.13), safety(), HORIZONS)
    loop.start()
    time.sleep(1.2)
    stats = loop.stop()
    assert stats.misses == len(stats.latency_s) > 4
    assert stats.commands > 45
    assert loop.latency.p95 == pytest.approx(0.13, abs=0.03)


def test_a_planner_that_hangs_makes_the_robot_hold(robot: ListeningRobot) -> None:
    controller = SteadyController()
    layer = safety(limits=SafetyLimits(max_sensor_age=0.25))
    loop = RealTimeLoop(robot, controller, layer, HORIZONS)
    loop.start()
    time.sleep(0.3)
    controller._seconds = 0.6
    time.sleep(0.55)
    assert robot.holds > 3
    assert loop.stop().holds["stale sensor"] > 3


def test_force_over_the_limit_stops_the_robot_for_good(robot: ListeningRobot) -> None:
    layer = safety(limits=SafetyLimits(max_force=1e-4))  # here the force is the distance to go
    loop = RealTimeLoop(robot, SteadyController(), layer, HORIZONS)
    loop.start()
    time.sleep(0.3)
    assert not loop.stop().clamps
    assert not robot.commands
    assert layer.latched is not None


def test_a_late_plan_enters_with_the_action_that_is_due() -> None:
    class Counting(SteadyController):
        """Planned in a tick and a half, once; action i moves by (i + 1) tenths of DX."""

        def update(self, obs: Obs, stamp: float, delay: float = 0.0) -> ActionChunk:
            chunk = super().update(obs, stamp)
            if self.updates > 1:
                time.sleep(0.5)
            actions = chunk.actions.copy()
            actions[:, 0] = DX * np.arange(1, 9) / 10
            return ActionChunk(actions, stamp, 0.1)

    robot = ListeningRobot()
    loop = RealTimeLoop(robot, Counting(0.15), safety(), HORIZONS, command_rate_hz=100)
    loop.start()
    time.sleep(0.5)
    stats = loop.stop()
    steps = np.array([a[0] for a in robot.commands]) / DX * 100
    assert steps[0] == pytest.approx(2, abs=1e-3)  # action 1: action 0 was due before
    assert steps.max() >= 4 - 1e-3
    assert np.all(np.diff(steps) > -1e-3)
    assert stats.reaction_s[0] == pytest.approx(0.16, abs=0.04)


def test_the_controller_is_told_the_delay_to_expect() -> None:
    class Noting(SteadyController):
        delays: ClassVar[list[float]] = []

        def update(self, obs: Obs, stamp: float, delay: float = 0.0) -> ActionChunk:
            self.delays.append(delay)
            return super().update(obs, stamp)

    robot = ListeningRobot()
    loop = RealTimeLoop(robot, Noting(0.05), safety(), HORIZONS, command_rate_hz=50)
    loop.start()
    time.sleep(1.2)
    loop.stop()
    # The first updates warm up and do not count.
    assert Noting.delays[-1] == pytest.approx(0.055, abs=0.03)


def test_the_delay_counts_from_the_update_in_which_a_plan_was_begun() -> None:
    class Late(SteadyController):
        """Each update gives the plan that the one before began."""

        begun: float | None = None

        def update(self, obs: Obs, stamp: float, delay: float = 0.0) -> ActionChunk:
            chunk = super().update(obs, stamp if self.begun is None else self.begun)
            self.begun = stamp
            return chunk

    loop = RealTimeLoop(ListeningRobot(), Late(), safety(), HORIZONS)
    loop.start()
    time.sleep(1.0)
    loop.stop()
    assert loop.latency.p95 > 0.05  # a tick is 0.1 s, an update takes nothing


def test_chunks_are_blended_where_they_enter(robot: ListeningRobot) -> None:
    class Swaying(SteadyController):
        """To and fro along x."""

        def update(self, obs: Obs, stamp: float, delay: float = 0.0) -> ActionChunk:
            chunk = super().update(obs, stamp)
            return ActionChunk(chunk.actions * SIGNS[self.updates % 2], stamp, 0.1)

    loop = RealTimeLoop(robot, Swaying(), safety(), HORIZONS, seam=SeamSettings(blend_ticks=2))
    loop.start()
    time.sleep(0.7)
    loop.stop()
    sizes = np.abs([a[0] for a in robot.commands]) / (DX / 5)
    assert sizes.max() <= 1 + 1e-6
    assert sizes.min() < 0.9


def test_a_small_real_policy_keeps_two_seconds_of_real_time() -> None:
    robot = ListeningRobot()
    controller = RTIController(tiny_policy(), nfe=1, cold_steps=4)
    loop = RealTimeLoop(robot, controller, safety(), TINY_HORIZONS, command_rate_hz=50)
    loop.start(seed=1)
    time.sleep(2.0)
    stats = loop.stop()
    assert stats.nfe[:3] == [4, 1, 1]
    assert len(stats.latency_s) >= 18
    assert stats.misses <= 1
    assert len(robot.commands) > 80
    low, high = np.array(TINY_SPEC.action.low), np.array(TINY_SPEC.action.high)
    for action in robot.commands:
        assert np.all(action[:3] >= low[:3] / 5 - 1e-6)
        assert np.all(action[:3] <= high[:3] / 5 + 1e-6)


def test_a_stopped_loop_starts_again(robot: ListeningRobot) -> None:
    loop = RealTimeLoop(robot, SteadyController(), safety(), HORIZONS)
    for _ in range(2):
        loop.start()
        with pytest.raises(ValueError, match="runs already"):
            loop.start()
        with pytest.raises(TimeoutError, match="still runs"):
            loop.join(timeout=0.05)
        loop.stop()


def test_a_robot_without_what_the_policy_needs_is_refused(robot: ListeningRobot) -> None:
    controller = SteadyController()
    controller.spec = DataSpec(
        {"lidar": TINY_SPEC.obs["goal"]}, TINY_SPEC.action, TINY_SPEC.rate_hz
    )
    with pytest.raises(SpecError, match="the policy wants observation 'lidar'"):
        RealTimeLoop(robot, controller, safety(), HORIZONS)
    with pytest.raises(ValueError, match="command_rate_hz"):
        RealTimeLoop(robot, SteadyController(), safety(), HORIZONS, command_rate_hz=5)


def test_both_threads_stay_on_their_cores() -> None:
    cores = sorted(os.sched_getaffinity(0))
    seen: dict[str, set[int]] = {}

    class Watched(ListeningRobot):
        def observe(self) -> tuple[Obs, float] | None:
            seen["plan"] = os.sched_getaffinity(0)
            return super().observe()

        def hold(self) -> None:
            seen["command"] = os.sched_getaffinity(0)
            super().hold()

    robot, pin = Watched(), Placement(plan=cores[:1], command=cores[-1:])
    loop = RealTimeLoop(
        robot, SteadyController(), SafetyLayer(robot.spec, SafetyLimits()), HORIZONS, pin=pin
    )
    loop.start()
    time.sleep(0.1)
    loop.stop()
    assert seen == {"plan": set(cores[:1]), "command": set(cores[-1:])}
    assert os.sched_getaffinity(0) == set(cores)
