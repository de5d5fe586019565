from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest

pytest.importorskip("rclpy")

from data.spec import SpecError
from deploy.ros2.node import PolicyNode
from deploy.ros2.settings import PolicyNodeSettings, SensorLimits
from deploy.ros2.wire import free_domain_id, ros_context
from deploy.safety import SafetyLimits
from tests.ros.bench_robot import (
    HORIZONS,
    SENSORS,
    BenchRobot,
    ScriptedController,
    running,
    wait_until,
)
from tests.ros.kinematic_task import KINEMATIC_SPEC

pytestmark = pytest.mark.ros
# Wider than the defaults, so that a busy machine does not make a sensor stale.
LIMITS = SensorLimits(image_age=0.4, wrench_age=0.2, pose_age=0.2)
SETTINGS = PolicyNodeSettings(sensors=LIMITS, safety=SafetyLimits(max_sensor_age=0.4))
COMMAND_PERIOD = 0.02
SLACK = 0.25  # [s] for threads and the wire on a busy machine


class Bench(NamedTuple):
    robot: BenchRobot
    controller: ScriptedController
    node: PolicyNode


class BlindToTouch(ScriptedController):
    """Looks at everything but the wrench."""

    spec = KINEMATIC_SPEC.select([key for key in KINEMATIC_SPEC.obs if key != "wrench"])


@pytest.fixture(params=[ScriptedController])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    domain = free_domain_id()
    with ros_context(domain) as here, ros_context(domain) as there:
        controller = request.param()
        node = PolicyNode(controller, HORIZONS, SETTINGS, here)
        robot = BenchRobot(there)
        with running(node), running(robot):
            yield Bench(robot, controller, node)


def start(bench: Bench) -> None:
    bench.robot.enable_once_ready()
    wait_until(lambda: len(bench.robot.commands) > 10)


def test_nothing_is_commanded_before_enable(bench: Bench) -> None:
    wait_until(bench.robot.sees_the_policy)
    time.sleep(0.5)
    assert bench.robot.commands == []
    start(bench)


def test_it_moves_at_the_commanded_speed(bench: Bench) -> None:
    start(bench)
    first, last = bench.robot.commands[0], bench.robot.commands[-1]
    wait_until(lambda: bench.robot.commands[-1][0] > first[0] + 0.5)
    last = bench.robot.commands[-1]
    speed = (last[1][1, 3] - first[1][1, 3]) / (last[0] - first[0])  # the tool's x is the world's y
    assert speed == pytest.approx(0.02, rel=0.4)


def test_the_policy_sees_windows_of_its_own_shapes(bench: Bench) -> None:
    start(bench)
    window = bench.controller.windows[-1]
    assert window["wrist_rgb"].shape == (HORIZONS.obs, 8, 6, 3)
    assert window["wrench"].shape == (HORIZONS.window, 6)


def test_disable_stops_the_tool_and_tells_what_happened(bench: Bench) -> None:
    start(bench)
    answer = bench.robot.enable(False)
    stopped = time.monotonic()
    time.sleep(0.2)
    assert bench.robot.moves_since(stopped + SLACK) == 0
    stats = json.loads(answer.message)
    assert stats["commands"] > 10
    assert len(stats["latency_s"]) > 0
    assert 0 < np.median(stats["latency_s"]) < 0.1


@pytest.mark.parametrize(
    ("sensor", "limit"),
    [("wrench", LIMITS.wrench_age), ("pose", LIMITS.pose_age), ("scene_rgb", LIMITS.image_age)],
)
def test_a_silent_sensor_makes_it_hold_within_its_limit(
    bench: Bench, sensor: str, limit: float
) -> None:
    start(bench)
    silenced = time.monotonic()
    bench.robot.silent.add(sensor)
    time.sleep(limit + COMMAND_PERIOD + SLACK + 0.2)
    assert bench.robot.moves_since(silenced + limit + COMMAND_PERIOD + SLACK) == 0
    assert bench.robot.commands[-1][0] > silenced + limit  # it keeps saying where to stand
    bench.robot.silent.clear()
    back = time.monotonic()
    wait_until(lambda: bench.robot.moves_since(back), what="motion once the sensor is back")


def test_a_chunk_that_has_run_out_makes_it_hold(bench: Bench) -> None:
    start(bench)
    bench.controller.frozen = True  # its last chunk ends 0.3 s later
    frozen = time.monotonic()
    time.sleep(0.8)
    assert bench.robot.moves_since(frozen + 0.4 + SLACK) == 0
    stats = json.loads(bench.robot.enable(False).message)
    assert stats["holds"]["stale chunk"] > 0


@pytest.mark.parametrize("bench", [ScriptedController, BlindToTouch], indirect=True)
def test_one_sample_over_the_force_limit_stops_it_until_a_reset(bench: Bench) -> None:
    start(bench)
    bench.robot.next_wrench = np.array([0, 0, 1.1 * SETTINGS.safety.max_force, 0, 0, 0])
    touched = time.monotonic()
    time.sleep(COMMAND_PERIOD + SLACK + 0.3)
    assert bench.robot.moves_since(touched + COMMAND_PERIOD + SLACK) == 0
    answer = bench.robot.enable()
    assert not answer.success
    assert "latched by force 66.0 N" in answer.message
    assert bench.robot.reset_policy().success
    bench.robot.enable_once_ready()


@pytest.mark.parametrize("bench", [BlindToTouch], indirect=True)
def test_a_policy_that_does_not_feel_still_needs_a_live_wrench(bench: Bench) -> None:
    start(bench)
    bench.robot.silent.add("wrench")
    silenced = time.monotonic()
    time.sleep(LIMITS.wrench_age + COMMAND_PERIOD + SLACK + 0.2)
    assert bench.robot.moves_since(silenced + LIMITS.wrench_age + COMMAND_PERIOD + SLACK) == 0


def test_enabling_a_running_policy_is_refused(bench: Bench) -> None:
    start(bench)
    answer = bench.robot.enable()
    assert not answer.success
    assert "running already; call ~/reset" in answer.message


def test_enable_is_refused_while_a_sensor_is_missing(bench: Bench) -> None:
    bench.robot.silent.update(SENSORS)
    time.sleep(LIMITS.image_age + SLACK)
    answer = bench.robot.enable()
    assert not answer.success
    assert "not enabled" in answer.message


def test_after_a_reset_it_begins_at_the_measured_pose_again(bench: Bench) -> None:
    start(bench)
    moved_to = bench.robot.commands[-1][1][1, 3]
    assert bench.robot.reset_policy().success
    count = len(bench.robot.commands)
    bench.robot.enable_once_ready()
    wait_until(lambda: len(bench.robot.commands) > count + 3)
    assert bench.robot.commands[count + 2][1][1, 3] < moved_to - 0.0005


def test_the_wrong_camera_size_ends_the_node_with_the_reason() -> None:
    domain = free_domain_id()
    with ros_context(domain) as here, ros_context(domain) as there:
        node = PolicyNode(ScriptedController(), HORIZONS, SETTINGS, here)
        robot = BenchRobot(there)
        robot.image_shape = (4, 4, 3)
        with running(robot), pytest.raises(SpecError, match=r"\(4, 4, 3\), wanted \(8, 6, 3\)"):
            node.run(threading.Event())
