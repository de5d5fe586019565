from __future__ import annotations

import os
import socket
import time

import numpy as np
import pytest

pytest.importorskip("rclpy")

from rclpy.node import Node
from sensor_msgs.msg import Image

from deploy.ros2.messages import image_to_msg, msg_to_image, to_time
from deploy.ros2.wire import (
    SENSOR_QOS,
    Spinner,
    StampClock,
    environment,
    free_domain_id,
    ros_context,
)
from tests.ros.bench_robot import wait_until

pytestmark = pytest.mark.ros


def test_an_image_crosses_the_wire_bit_equal() -> None:
    domain = free_domain_id()
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    received: list[Image] = []
    with ros_context(domain) as there, ros_context(domain) as here:
        sender, receiver = Node("sender", context=there), Node("receiver", context=here)
        publisher = sender.create_publisher(Image, "/image", SENSOR_QOS)
        receiver.create_subscription(Image, "/image", received.append, SENSOR_QOS)
        spinner = Spinner(receiver)
        wait_until(lambda: publisher.get_subscription_count() > 0)
        message = image_to_msg(image, to_time(7), "wrist")
        while not received:  # best effort: the first may come before the receiver knows the sender
            publisher.publish(message)
            time.sleep(0.05)
        spinner.stop()
        sender.destroy_node()
        receiver.destroy_node()
    np.testing.assert_array_equal(msg_to_image(received[0]), image)


def test_an_error_in_a_callback_is_raised_by_check() -> None:
    with ros_context(free_domain_id()) as context:
        node = Node("failing", context=context)

        def fail() -> None:
            raise ValueError("boom")

        node.create_timer(0.01, fail)
        spinner = Spinner(node)
        with pytest.raises(ValueError, match="boom"):
            wait_until(lambda: spinner.check())
        spinner.stop()
        node.destroy_node()


def test_stamps_cross_the_clocks_and_come_back() -> None:
    clock = StampClock()
    stamp = clock.monotonic(1_234_567_890_123_456_789)
    assert clock.wall_ns(stamp) == pytest.approx(1_234_567_890_123_456_789, abs=1000)


def test_a_jump_of_the_wall_clock_is_followed_only_by_calibrate() -> None:
    wall = [0]
    clock = StampClock(lambda: wall[0])
    before = clock.monotonic(5_000_000_000)
    wall[0] = 10**12
    assert clock.monotonic(5_000_000_000) == before
    clock.calibrate()
    assert clock.monotonic(5_000_000_000) == pytest.approx(before - 1000, abs=0.5)


def test_a_free_domain_has_no_participant() -> None:
    domain = free_domain_id()
    assert 1 <= domain <= 100
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("", 7400 + 250 * domain))


def test_environment_is_put_back() -> None:
    name = "PRISE_TEST_VARIABLE"
    with environment({name: "1"}):
        assert os.environ[name] == "1"
    assert name not in os.environ
