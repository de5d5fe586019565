from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import Image

from data.spec import SpecError
from deploy.ros2.messages import (
    image_to_msg,
    msg_to_image,
    msg_to_pose,
    msg_to_wrench,
    pose_to_msg,
    to_nanoseconds,
    to_time,
    wrench_to_msg,
)

pytestmark = pytest.mark.ros
STAMP = to_time(1_234_567_890_123_456_789)


def quarter_turn_about_z() -> np.ndarray:
    T_world_tool = np.eye(4)
    T_world_tool[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    T_world_tool[:3, 3] = 1.0, 2.0, 3.0
    return T_world_tool


def test_stamps_keep_their_nanoseconds() -> None:
    assert to_nanoseconds(STAMP) == 1_234_567_890_123_456_789


def test_an_image_comes_back_bit_equal() -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(msg_to_image(image_to_msg(image, STAMP, "wrist")), image)


def test_padded_rows_are_cut_off() -> None:
    image = np.random.default_rng(0).integers(0, 256, (4, 3, 3), dtype=np.uint8)
    padded = np.pad(image.reshape(4, 9), ((0, 0), (0, 7)))
    msg = Image(height=4, width=3, step=16, encoding="rgb8")
    msg.data.frombytes(padded.tobytes())
    np.testing.assert_array_equal(msg_to_image(msg), image)


def test_bgr_becomes_rgb_and_grey_gets_three_channels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (4, 3, 3), dtype=np.uint8)
    msg = image_to_msg(image[..., ::-1], STAMP, "wrist")
    msg.encoding = "bgr8"
    np.testing.assert_array_equal(msg_to_image(msg), image)
    grey = Image(height=2, width=2, step=2, encoding="mono8")
    grey.data.frombytes(bytes([1, 2, 3, 4]))
    np.testing.assert_array_equal(msg_to_image(grey)[1, 0], [3, 3, 3])


def test_an_unknown_encoding_is_named_with_the_known_ones() -> None:
    msg = image_to_msg(np.zeros((2, 2, 3), np.uint8), STAMP, "wrist")
    msg.encoding = "32FC1"
    with pytest.raises(SpecError, match=r"'32FC1'.*rgb8"):
        msg_to_image(msg)


def test_an_image_with_missing_bytes_is_refused() -> None:
    msg = image_to_msg(np.zeros((2, 2, 3), np.uint8), STAMP, "wrist")
    msg.height = 3
    with pytest.raises(SpecError, match="12 bytes"):
        msg_to_image(msg)


def test_ros_gets_the_quaternion_as_x_y_z_w() -> None:
    orientation = pose_to_msg(quarter_turn_about_z(), STAMP, "world").pose.orientation
    half = np.sqrt(0.5)
    values = [orientation.x, orientation.y, orientation.z, orientation.w]
    np.testing.assert_allclose(values, [0, 0, half, half])


def test_a_pose_comes_back() -> None:
    pose = quarter_turn_about_z()
    np.testing.assert_allclose(msg_to_pose(pose_to_msg(pose, STAMP, "world")), pose, atol=1e-12)


@pytest.mark.parametrize("w", [0.0, 2.0, float("nan")])
def test_a_quaternion_without_unit_length_is_refused(w: float) -> None:
    msg = PoseStamped()
    msg.pose.orientation.w = w
    with pytest.raises(SpecError, match="unit length"):
        msg_to_pose(msg)


def test_a_position_of_nan_is_refused() -> None:
    msg = PoseStamped()
    msg.pose.position.y = float("nan")
    with pytest.raises(SpecError, match="NaN"):
        msg_to_pose(msg)


def test_a_wrench_comes_back_in_order() -> None:
    wrench = np.arange(6, dtype=np.float32)
    np.testing.assert_array_equal(msg_to_wrench(wrench_to_msg(wrench, STAMP, "tool")), wrench)
