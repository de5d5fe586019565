from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

from geometry_msgs.msg import PoseStamped, WrenchStamped
from rclpy.client import Client
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from deploy.ros2.messages import pose_to_msg, to_nanoseconds, to_time
from deploy.ros2.settings import SimNodeSettings
from deploy.ros2.sim_node import SimNode
from deploy.ros2.wire import (
    COMMAND_QOS,
    LATCHED_QOS,
    SENSOR_QOS,
    Spinner,
    free_domain_id,
    ros_context,
)
from tests.ros.bench_robot import running, wait_until
from tests.ros.kinematic_task import TOPICS, KinematicTask, start_pose

pytestmark = pytest.mark.ros


class Listener:
    """Everything that the simulated robot says, and the two things one can tell it."""

    def __init__(self, node: Node) -> None:
        self.said: dict[str, list[Any]] = {}
        for topic, kind in (
            *((topic, Image) for topic in TOPICS.images.values()),
            ("/wrench", WrenchStamped),
            ("/pose", PoseStamped),
        ):
            self.said[topic] = []
            node.create_subscription(kind, topic, self.said[topic].append, SENSOR_QOS)
        self.said["/episode"] = []
        node.create_subscription(String, "/episode", self.said["/episode"].append, LATCHED_QOS)
        self.command = node.create_publisher(PoseStamped, TOPICS.command, COMMAND_QOS)
        self._reset: Client[Any, Any] = node.create_client(Trigger, "/prise_sim/reset")

    def reset(self) -> Any:
        wait_until(self._reset.service_is_ready)
        future = self._reset.call_async(Trigger.Request())
        wait_until(future.done)
        return future.result()

    def send(self, T_world_tool: np.typing.NDArray[np.float64]) -> None:
        self.command.publish(pose_to_msg(T_world_tool, to_time(time.time_ns()), "world"))

    def stamps(self, topic: str) -> np.typing.NDArray[np.float64]:
        return np.array([to_nanoseconds(m.header.stamp) for m in list(self.said[topic])]) * 1e-9

    def episodes(self) -> list[dict[str, Any]]:
        return [json.loads(message.data) for message in self.said["/episode"]]


@contextmanager
def simulated(task: KinematicTask, seeds: list[int]) -> Iterator[Listener]:
    domain = free_domain_id()
    with ros_context(domain) as here, ros_context(domain) as there:
        sim = SimNode(task, seeds, SimNodeSettings(), there)
        node = Node("listener", context=here)
        listener = Listener(node)
        spinner = Spinner(node)
        with running(sim):
            wait_until(lambda: listener.command.get_subscription_count() > 0)
            yield listener
        spinner.stop()
        node.destroy_node()


def test_both_images_of_a_tick_carry_one_stamp_at_10_hz() -> None:
    with simulated(KinematicTask(), [0]) as robot:
        wait_until(lambda: len(robot.said["/scene/image"]) > 5)
    wrist, scene = robot.stamps("/wrist/image"), robot.stamps("/scene/image")
    assert len(np.intersect1d(wrist, scene)) >= 5
    assert np.median(np.diff(scene)) == pytest.approx(0.1, abs=1e-3)


def test_wrench_and_pose_come_at_100_hz_on_the_stamps_of_the_images() -> None:
    with simulated(KinematicTask(), [0]) as robot:
        wait_until(lambda: len(robot.said["/scene/image"]) > 3)
    for topic in ("/wrench", "/pose"):
        assert np.median(np.diff(robot.stamps(topic))) == pytest.approx(0.01, abs=1e-3)
        assert np.isin(robot.stamps("/scene/image")[1:-1], robot.stamps(topic)).all()


def test_each_reset_takes_the_next_seed_until_there_is_none() -> None:
    task = KinematicTask()
    with simulated(task, [5, 6]) as robot:
        answers = [robot.reset() for _ in range(3)]
    assert [answer.success for answer in answers] == [True, True, False]
    assert [json.loads(answer.message)["seed"] for answer in answers[:2]] == [5, 6]
    assert task.seeds == [5, 6]
    assert "2 episodes" in answers[2].message


def test_nothing_is_judged_before_the_first_command() -> None:
    task = KinematicTask()
    with simulated(task, [0]) as robot:
        robot.reset()
        time.sleep(0.4)
        assert task.judged == 0
        robot.send(start_pose())
        wait_until(lambda: task.judged > 0)


def test_the_end_is_announced_once_with_its_seed_and_stops_the_robot() -> None:
    task = KinematicTask(ticks=2)
    with simulated(task, [9]) as robot:
        robot.reset()
        robot.send(start_pose())
        wait_until(robot.episodes)
        elsewhere = start_pose()
        elsewhere[0, 3] += 0.1
        robot.send(elsewhere)
        time.sleep(0.2)
        np.testing.assert_allclose(task.T_world_tool, start_pose())
        report = robot.episodes()
    assert len(report) == 1
    assert report[0]["seed"] == 9
    assert report[0]["success"] is True
    assert report[0]["metrics"] == {"ticks": 1.0}


def test_a_command_moves_the_tool_within_the_command_period() -> None:
    task = KinematicTask()
    with simulated(task, [0]) as robot:
        robot.reset()
        target = start_pose()
        target[2, 3] += 0.01
        robot.send(target)
        wait_until(lambda: np.allclose(task.T_world_tool, target), timeout=1.0)


def test_a_command_without_orientation_is_ignored() -> None:
    task = KinematicTask()
    with simulated(task, [0]) as robot:
        robot.reset()
        message = PoseStamped()
        message.pose.orientation.w = 0.0
        robot.command.publish(message)
        time.sleep(0.1)
    np.testing.assert_allclose(task.T_world_tool, start_pose())


def test_the_simulated_robot_never_loads_torch() -> None:
    modules = "deploy.ros2.commands, deploy.ros2.sim_node, deploy.ros2.sim_task"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
