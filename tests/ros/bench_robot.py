"""Parts of the ROS tests: nodes in threads, a robot made of publishers, a scripted controller."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from geometry_msgs.msg import PoseStamped, WrenchStamped
from numpy.typing import NDArray
from rclpy.client import Client
from rclpy.context import Context
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool, Trigger

from data.spec import DataSpec, Horizons, Obs
from deploy.chunk import ActionChunk
from deploy.robot_io import STAND_STILL
from deploy.ros2.messages import image_to_msg, msg_to_pose, pose_to_msg, to_time, wrench_to_msg
from deploy.ros2.wire import COMMAND_QOS, SENSOR_QOS, Spinner
from tests.ros.kinematic_task import KINEMATIC_SPEC, TOPICS, start_pose

HORIZONS = Horizons(obs=2, pred=8, window=16)
STEP = 0.002  # [m] per tick along the tool's x axis
SENSORS = ("wrist_rgb", "scene_rgb", "pose", "wrench")


class Runs(Protocol):
    """A node with a main loop."""

    def run(self, stop: threading.Event) -> None: ...


@contextmanager
def running(node: Runs) -> Iterator[None]:
    """The node in a thread; raises what `run` raised."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(node.run, stop)
        try:
            yield
        finally:
            stop.set()
        future.result(timeout=10)


def wait_until(condition: Callable[[], Any], timeout: float = 5.0, what: str = "") -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what or condition} did not come in {timeout} s"
        time.sleep(0.005)


class ScriptedController:
    """Always moves along x; `frozen` it returns the old chunk, as an exhausted one would."""

    spec: DataSpec = KINEMATIC_SPEC

    def __init__(self) -> None:
        self.last_nfe, self.last_seconds = 1, {"encode": 0.0, "solve": 0.0}
        self.frozen = False
        self.windows: list[Obs] = []
        self._chunk: ActionChunk | None = None

    def reset(self, seed: int = 0) -> None:
        self._chunk = None

    def update(self, obs: Obs, stamp: float, delay: float = 0.0) -> ActionChunk:
        self.windows.append(obs)
        if self._chunk is None or not self.frozen:
            actions = np.tile(STAND_STILL, (3, 1))
            actions[:, 0] = STEP
            self._chunk = ActionChunk(actions, stamp, 0.1)
        return self._chunk


class BenchRobot(Node):
    """Publishes what a standing robot would; single sensors can be silenced; notes commands."""

    def __init__(self, context: Context) -> None:
        super().__init__("bench_robot", context=context)
        self.silent: set[str] = set()
        self.next_wrench = np.zeros(6)  # of one sample; then the robot is out of touch again
        self.image_shape = (8, 6, 3)
        self.commands: list[tuple[float, NDArray[np.float64]]] = []
        self._publisher = {
            "wrist_rgb": self.create_publisher(Image, TOPICS.images["wrist_rgb"], SENSOR_QOS),
            "scene_rgb": self.create_publisher(Image, TOPICS.images["scene_rgb"], SENSOR_QOS),
            "pose": self.create_publisher(PoseStamped, TOPICS.poses["pose"], SENSOR_QOS),
            "wrench": self.create_publisher(WrenchStamped, TOPICS.wrenches["wrench"], SENSOR_QOS),
        }
        self.create_subscription(PoseStamped, TOPICS.command, self._on_command, COMMAND_QOS)
        self._enable: Client[Any, Any] = self.create_client(SetBool, "/prise_policy/enable")
        self._reset: Client[Any, Any] = self.create_client(Trigger, "/prise_policy/reset")

    def run(self, stop: threading.Event) -> None:
        spinner = Spinner(self)
        due, count = time.monotonic(), 0
        while not stop.is_set():
            spinner.check()
            self._publish(with_images=count % 10 == 0)
            due, count = due + 0.01, count + 1
            time.sleep(max(0.0, due - time.monotonic()))
        spinner.stop()
        self.destroy_node()

    def _publish(self, with_images: bool) -> None:
        stamp = to_time(time.time_ns())
        image = np.zeros(self.image_shape, np.uint8)
        messages = {
            "pose": pose_to_msg(start_pose(), stamp, "world"),
            "wrench": wrench_to_msg(self.next_wrench, stamp, "tool"),
        }
        self.next_wrench = np.zeros(6)
        if with_images:
            messages |= {k: image_to_msg(image, stamp, k) for k in ("wrist_rgb", "scene_rgb")}
        for key, message in messages.items():
            if key not in self.silent:
                self._publisher[key].publish(message)

    def _on_command(self, msg: PoseStamped) -> None:
        self.commands.append((time.monotonic(), msg_to_pose(msg)))

    def sees_the_policy(self) -> bool:
        """True once the policy node's services are there."""
        return bool(self._enable.service_is_ready() and self._reset.service_is_ready())

    def enable(self, on: bool = True) -> Any:
        return self._call(self._enable, SetBool.Request(data=on))

    def enable_once_ready(self) -> None:
        wait_until(lambda: self.enable().success, what="a policy node that can be enabled")

    def reset_policy(self) -> Any:
        return self._call(self._reset, Trigger.Request())

    def _call(self, client: Any, request: Any) -> Any:
        wait_until(client.service_is_ready, what=client.srv_name)
        future = client.call_async(request)
        wait_until(future.done, what=f"an answer of {client.srv_name}")
        return future.result()

    def moves_since(self, stamp: float) -> int:
        """Commands after `stamp` [s] that differ from the one before."""
        poses = list(self.commands)
        pairs = itertools.pairwise(poses)
        return sum(at > stamp and not np.allclose(T0, T) for (_, T0), (at, T) in pairs)
