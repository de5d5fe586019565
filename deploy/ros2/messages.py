"""Arrays to ROS messages and back. Quaternions are (w, x, y, z) here and x, y, z, w on the wire."""

from __future__ import annotations

import array

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped, WrenchStamped
from numpy.typing import NDArray
from sensor_msgs.msg import Image

from data.rotation import matrix_to_quat, quat_to_matrix
from data.spec import SpecError

NANOSECONDS = 1_000_000_000
CHANNELS = {"rgb8": 3, "bgr8": 3, "mono8": 1}


def to_time(nanoseconds: int) -> Time:
    """Stamp of a header."""
    seconds, rest = divmod(nanoseconds, NANOSECONDS)
    return Time(sec=seconds, nanosec=rest)


def to_nanoseconds(stamp: Time) -> int:
    """Inverse of `to_time`."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def image_to_msg(image: NDArray[np.uint8], stamp: Time, frame: str) -> Image:
    """rgb8 message of an image (H, W, 3)."""
    height, width, _ = image.shape
    msg = Image(height=height, width=width, step=3 * width, encoding="rgb8")
    msg.header.stamp, msg.header.frame_id = stamp, frame
    msg.data = array.array("B", image.tobytes())
    return msg


def msg_to_image(msg: Image) -> NDArray[np.uint8]:
    """RGB image (H, W, 3) of an rgb8, bgr8 or mono8 message; honours `step`."""
    if msg.encoding not in CHANNELS:
        raise SpecError(
            f"an image came with encoding {msg.encoding!r}, wanted one of {sorted(CHANNELS)}; "
            "set the camera driver's encoding."
        )
    channels = CHANNELS[msg.encoding]
    row = msg.width * channels
    data = np.frombuffer(msg.data, np.uint8)
    if msg.step < row or len(data) != msg.step * msg.height:
        raise SpecError(
            f"an image of {msg.width} x {msg.height} {msg.encoding} came with step {msg.step} and "
            f"{len(data)} bytes, wanted step >= {row} and step * height bytes."
        )
    image = data.reshape(msg.height, msg.step)[:, :row].reshape(msg.height, msg.width, channels)
    if msg.encoding == "bgr8":
        return np.ascontiguousarray(image[..., ::-1])
    return np.repeat(image, 3, axis=-1) if channels == 1 else image


def wrench_to_msg(wrench: NDArray[np.floating], stamp: Time, frame: str) -> WrenchStamped:
    """Message of (fx, fy, fz [N], tx, ty, tz [N m]), in `frame`."""
    msg = WrenchStamped()
    msg.header.stamp, msg.header.frame_id = stamp, frame
    force, torque = msg.wrench.force, msg.wrench.torque
    force.x, force.y, force.z, torque.x, torque.y, torque.z = map(float, wrench)
    return msg


def msg_to_wrench(msg: WrenchStamped) -> NDArray[np.float32]:
    """(fx, fy, fz, tx, ty, tz), float32."""
    force, torque = msg.wrench.force, msg.wrench.torque
    return np.array([force.x, force.y, force.z, torque.x, torque.y, torque.z], np.float32)


def pose_to_msg(T_world_tool: NDArray[np.float64], stamp: Time, frame: str) -> PoseStamped:
    """Message of a pose (4, 4) in `frame`."""
    msg = PoseStamped()
    msg.header.stamp, msg.header.frame_id = stamp, frame
    position, orientation = msg.pose.position, msg.pose.orientation
    position.x, position.y, position.z = map(float, T_world_tool[:3, 3])
    w, x, y, z = map(float, matrix_to_quat(T_world_tool[:3, :3]))
    orientation.w, orientation.x, orientation.y, orientation.z = w, x, y, z
    return msg


def msg_to_pose(msg: PoseStamped) -> NDArray[np.float64]:
    """Pose (4, 4); raises SpecError for a quaternion that is none."""
    position, orientation = msg.pose.position, msg.pose.orientation
    quat = np.array([orientation.w, orientation.x, orientation.y, orientation.z])
    if not abs(np.linalg.norm(quat) - 1) < 1e-3:
        raise SpecError(
            f"a pose came with quaternion (w, x, y, z) = {quat.tolist()}, wanted unit length; "
            "check the driver that publishes it."
        )
    T_world_tool = np.eye(4)
    T_world_tool[:3, :3] = quat_to_matrix(quat)
    T_world_tool[:3, 3] = position.x, position.y, position.z
    if not np.isfinite(T_world_tool).all():
        raise SpecError("a pose came with NaN or Inf; check the driver that publishes it.")
    return T_world_tool
