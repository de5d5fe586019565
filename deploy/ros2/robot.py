"""A robot behind ROS 2 topics: cameras, wrench and pose come in, commanded tool poses go out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, WrenchStamped
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import Image

from data.rotation import apply_increment, pose9, pose9_to_matrix
from data.spec import DataSpec, Obs, SpecError
from deploy.ros2.messages import (
    msg_to_image,
    msg_to_pose,
    msg_to_wrench,
    pose_to_msg,
    to_nanoseconds,
    to_time,
)
from deploy.ros2.settings import PolicyNodeSettings
from deploy.ros2.sync import ObservationBuffer
from deploy.ros2.wire import COMMAND_QOS, SENSOR_QOS, StampClock

Array = NDArray[np.float64]


class Ros2Robot:
    """RobotIO over topics; the node's executor feeds it. Stamps are on `time.monotonic`.

    Increments add up on the commanded pose, which is the measured one only at the first command
    after `clear`: taking it from the measurement each time would let the impedance controller's
    yielding leak into the command. Nothing at all is published before that first command.
    """

    def __init__(self, node: Node, spec: DataSpec, settings: PolicyNodeSettings) -> None:
        self.spec = spec
        self.holds: Counter[str] = Counter()
        self.error: SpecError | None = None  # set by a callback; the node's main thread raises it
        self.on_wrench: Callable[[NDArray[Any]], None] = lambda wrench: None
        self._frame = settings.world_frame
        self._pose_key = next((k for k, s in spec.obs.items() if s.modality == "state"), None)
        if self._pose_key is None:
            raise SpecError(
                "the commanded pose starts at the measured one, but the policy observes none; "
                f"its keys are {sorted(spec.obs)}."
            )
        self._buffer = ObservationBuffer(spec, settings.sensors)
        self._clock = StampClock(lambda: int(node.get_clock().now().nanoseconds))
        self._T_world_commanded: Array | None = None
        topics = settings.topics
        for key in spec.obs:
            self._subscribe(node, key, topics.of(key, spec))
        # Wrenches that the policy does not look at still guard the robot.
        self._guard_stamps = {key: -np.inf for key in topics.wrenches if key not in spec.obs}
        self._wrench_age = settings.sensors.wrench_age
        for key in self._guard_stamps:
            self._guard(node, key, topics.wrenches[key])
        self._publisher = node.create_publisher(PoseStamped, topics.command, COMMAND_QOS)
        self._closed = False

    def _subscribe(self, node: Node, key: str, topic: str) -> None:
        spec = self.spec.obs[key]
        kinds: dict[str, tuple[type, Callable[[Any], NDArray[Any]]]] = {
            "image": (Image, msg_to_image),
            "wrench": (WrenchStamped, msg_to_wrench),
            "state": (PoseStamped, lambda msg: pose9(msg_to_pose(msg)).astype(np.float32)),
        }
        message, read = kinds[spec.modality]

        def receive(msg: Any) -> None:
            try:
                value = read(msg)
                if value.shape != spec.shape:
                    raise SpecError(
                        f"it came as {value.shape}, wanted {spec.shape}; change the driver's "
                        "settings or train with this size."
                    )
            except SpecError as error:
                self.error = SpecError(f"topic {topic} for observation {key!r}: {error}")
                return
            if spec.modality == "wrench":
                self.on_wrench(value)
            stamp = self._clock.monotonic(to_nanoseconds(msg.header.stamp))
            self._buffer.add(key, stamp, value)

        node.create_subscription(message, topic, receive, SENSOR_QOS)

    def _guard(self, node: Node, key: str, topic: str) -> None:
        def receive(msg: WrenchStamped) -> None:
            self.on_wrench(msg_to_wrench(msg))
            stamp = self._clock.monotonic(to_nanoseconds(msg.header.stamp))
            self._guard_stamps[key] = max(self._guard_stamps[key], stamp)

        node.create_subscription(WrenchStamped, topic, receive, SENSOR_QOS)

    def observe(self) -> tuple[Obs, float] | None:
        """The next complete observation and its stamp [s], or None."""
        return self._buffer.take()

    def command(self, action: NDArray[np.floating], duration: float) -> None:
        """Publish the commanded pose after the increment `action`; hold if a sensor is stale.

        The robot interpolates to it over its command period, which is `duration`.
        """
        if (stale := self._stale(time.monotonic())) is not None:
            self.holds[f"stale {stale.split()[0]}"] += 1
            self.hold()
            return
        if self._T_world_commanded is None:
            self._T_world_commanded = self._measured()
        self._T_world_commanded = apply_increment(self._T_world_commanded, action)
        self._publish(self._T_world_commanded)

    def hold(self) -> None:
        """Publish the commanded pose again; before the first command the robot stands by itself."""
        if self._T_world_commanded is not None and not self._closed:
            self._publish(self._T_world_commanded)

    def close(self) -> None:
        """Hold, then publish nothing more."""
        self.hold()
        self._closed = True

    def clear(self) -> None:
        """Forget what was observed and commanded: an episode begins."""
        self._clock.calibrate()
        self._T_world_commanded = None
        self.holds.clear()
        self._buffer.clear(time.monotonic())

    def calibrate_clock(self) -> None:
        """Follow the wall clock's slewing; call it every second or so."""
        self._clock.calibrate()

    def is_connected(self) -> bool:
        """True once somebody listens to the commands."""
        return self._publisher.get_subscription_count() > 0

    def stale(self) -> str | None:
        """Which sensor is too old to act on, in words, or None."""
        return self._stale(time.monotonic())

    def _stale(self, now: float) -> str | None:
        for key, stamp in self._guard_stamps.items():
            if now - stamp > self._wrench_age:
                return f"{key} is silent: the force limit cannot be watched"
        return self._buffer.stale(now)

    def counts(self) -> dict[str, int]:
        """Observations dropped, wrench samples filled in, samples out of order, since `clear`."""
        buffer = self._buffer
        return {
            "dropped": buffer.dropped,
            "filled": buffer.filled,
            "out_of_order": buffer.out_of_order,
        }

    def _measured(self) -> Array:
        assert self._pose_key is not None
        pose = self._buffer.newest(self._pose_key)
        assert pose is not None, "a pose that has not come is stale"
        return pose9_to_matrix(pose)

    def _publish(self, T_world_tool: Array) -> None:
        stamp = to_time(self._clock.wall_ns(time.monotonic()))
        self._publisher.publish(pose_to_msg(T_world_tool, stamp, self._frame))
