"""The real-time loop, in threads and in real time, on an in-memory robot."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import numpy as np
import pytest

from data.spec import DataSpec, Obs, SpecError
from deploy.controllers.rti import RTIController
from deploy.loop import RealTimeLoop
from deploy.placement import Placement
from deploy.safety import SafetyLayer, SafetyLimits
from tests.loop_robot import DX, HORIZONS, ListeningRobot, SteadyController, safety
from tests.tiny_env import TINY_SPEC
from tests.tiny_policy import TINY_HORIZONS, tiny_policy


@pytest.fixture
def robot() -> Iterator[ListeningRobot]:
    robot = ListeningRobot()
    yield robot
    robot.close()


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
