from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from rclpy.node import Node

from data.spec import ObsSpec, SpecError
from deploy.robot_io import STAND_STILL, RobotIO
from deploy.ros2.robot import Ros2Robot
from deploy.ros2.settings import PolicyNodeSettings, SensorLimits, SimNodeSettings
from deploy.ros2.sim_node import SimNode
from deploy.ros2.wire import Spinner, free_domain_id, ros_context
from tests.robot_io_conformance import RobotIOConformance
from tests.ros.bench_robot import BenchRobot, running, wait_until
from tests.ros.kinematic_task import KINEMATIC_SPEC, KinematicTask, start_pose

pytestmark = pytest.mark.ros
# A busy machine delays sensors; only a silent one is to count as stale here.
PATIENT = PolicyNodeSettings(sensors=SensorLimits(image_age=1.0, wrench_age=0.3, pose_age=1.0))


class TestRos2Robot(RobotIOConformance):
    """Against the simulated robot's node, with a task without physics."""

    @pytest.fixture
    def robot(self) -> Iterator[RobotIO]:
        domain = free_domain_id()
        with ros_context(domain) as here, ros_context(domain) as there:
            sim = SimNode(KinematicTask(), [0], SimNodeSettings(), there)
            node = Node("driver", context=here)
            robot = Ros2Robot(node, KINEMATIC_SPEC, PATIENT)
            spinner = Spinner(node)
            with running(sim):
                wait_until(lambda: robot.stale() is None)
                wait_until(robot.is_connected)
                yield robot
            spinner.stop()
            node.destroy_node()


@pytest.fixture
def bench() -> Iterator[tuple[BenchRobot, Ros2Robot]]:
    """A standing robot, and the driver that listens to it."""
    domain = free_domain_id()
    with ros_context(domain) as here, ros_context(domain) as there:
        publishers = BenchRobot(there)
        node = Node("driver", context=here)
        robot = Ros2Robot(node, KINEMATIC_SPEC, PATIENT)
        spinner = Spinner(node)
        with running(publishers):
            wait_until(lambda: robot.stale() is None)
            wait_until(robot.is_connected)
            yield publishers, robot
        spinner.stop()
        node.destroy_node()


def step_x(metres: float) -> np.typing.NDArray[np.float64]:
    action = STAND_STILL.copy()
    action[0] = metres
    return action


def send(publishers: BenchRobot, command: Callable[[], None]) -> None:
    """One command at a time: on the wire a newer one replaces an older one."""
    count = len(publishers.commands)
    command()
    wait_until(lambda: len(publishers.commands) > count)


def test_increments_add_up_in_the_tool_frame(bench: tuple[BenchRobot, Ros2Robot]) -> None:
    publishers, robot = bench
    for _ in range(3):
        send(publishers, lambda: robot.command(step_x(0.001), 0.02))
    moved = publishers.commands[-1][1][:3, 3] - start_pose()[:3, 3]
    # The measured pose never moved: the sum is over what was commanded.
    np.testing.assert_allclose(moved, [0, 0.003, 0], atol=1e-6)


def test_hold_before_any_command_publishes_nothing(bench: tuple[BenchRobot, Ros2Robot]) -> None:
    publishers, robot = bench
    robot.hold()
    robot.command(step_x(0.001), 0.02)
    wait_until(lambda: publishers.commands)
    assert len(publishers.commands) == 1


def test_a_command_on_a_silent_wrench_holds(bench: tuple[BenchRobot, Ros2Robot]) -> None:
    publishers, robot = bench
    send(publishers, lambda: robot.command(step_x(0.001), 0.02))
    publishers.silent.add("wrench")
    wait_until(lambda: robot.stale() is not None, timeout=1.0)
    send(publishers, lambda: robot.command(step_x(0.001), 0.02))
    np.testing.assert_allclose(publishers.commands[0][1], publishers.commands[1][1])
    assert robot.holds["stale wrench"] == 1


def test_clear_starts_again_from_the_measured_pose(bench: tuple[BenchRobot, Ros2Robot]) -> None:
    publishers, robot = bench
    send(publishers, lambda: robot.command(step_x(0.005), 0.02))
    robot.clear()
    wait_until(lambda: robot.stale() is None)
    send(publishers, lambda: robot.command(step_x(0.0), 0.02))
    np.testing.assert_allclose(publishers.commands[1][1], start_pose(), atol=1e-6)


def test_a_camera_of_the_wrong_size_is_an_error_with_both_sizes(
    bench: tuple[BenchRobot, Ros2Robot],
) -> None:
    publishers, robot = bench
    publishers.image_shape = (16, 12, 3)
    wait_until(lambda: robot.error is not None)
    with pytest.raises(SpecError, match=r"/image.*\(16, 12, 3\), wanted \(8, 6, 3\)"):
        raise robot.error or AssertionError


def test_a_key_without_a_topic_is_refused_with_the_topics_there_are() -> None:
    extra = ObsSpec((6,), "wrench", "N, N m", 100.0)
    spec = replace(KINEMATIC_SPEC, obs={**KINEMATIC_SPEC.obs, "left_wrench": extra})
    with ros_context(free_domain_id()) as context:
        node = Node("driver", context=context)
        with pytest.raises(SpecError, match=r"'left_wrench'.*'/wrench'"):
            Ros2Robot(node, spec, PolicyNodeSettings())
        node.destroy_node()
