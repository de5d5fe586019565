"""Rotations and tool-frame increments in numpy float64, with leading batch dimensions.

Quaternions are (w, x, y, z). rot6d is the first two columns of the matrix, one after the other
(Zhou et al. 2019, "On the Continuity of Rotation Representations in Neural Networks").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

ROT6D = ("r00", "r10", "r20", "r01", "r11", "r21")  # names of its dimensions, in order

_DEGENERATE = 1e-8  # below this length a column or quaternion points nowhere
_PLANELESS = 1e-4  # below this area two columns leave their normal to chance


def _array(value: ArrayLike, tail: tuple[int, ...], name: str) -> Array:
    array = np.asarray(value, dtype=np.float64)
    if array.shape[array.ndim - len(tail) :] != tail:
        raise ValueError(f"{name} has shape {array.shape}, wanted (..., {str(tail)[1:-1]}).")
    return array


def _unit(vector: Array, what: str) -> Array:
    norm = np.linalg.norm(vector, axis=-1, keepdims=True)
    if not np.all(norm > _DEGENERATE):  # also catches NaN
        raise ValueError(f"{what} has (almost) no length or is NaN: it is no rotation.")
    unit: Array = vector / norm
    return unit


def matrix_to_rot6d(matrix: ArrayLike) -> Array:
    """First two columns of (..., 3, 3), one after the other: (..., 6)."""
    matrix = _array(matrix, (3, 3), "matrix")
    return np.concatenate([matrix[..., :, 0], matrix[..., :, 1]], axis=-1)


def rot6d_to_matrix(rot6d: ArrayLike) -> Array:
    """Gram-Schmidt of any two independent columns (..., 6): a rotation (..., 3, 3)."""
    rot6d = _array(rot6d, (6,), "rot6d")
    x = _unit(rot6d[..., :3], "rot6d: the first column")
    y = rot6d[..., 3:]
    y = _unit(y - (x * y).sum(-1, keepdims=True) * x, "rot6d: the second column, across the first,")
    return np.stack([x, y, np.cross(x, y)], axis=-1)


def quat_to_matrix(quat: ArrayLike) -> Array:
    """Rotation matrix of a quaternion (..., 4) of any length but zero."""
    w, x, y, z = np.moveaxis(_unit(_array(quat, (4,), "quaternion"), "quaternion"), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def matrix_to_quat(matrix: ArrayLike) -> Array:
    """Unit quaternion (..., 4) with w >= 0 of a rotation matrix (..., 3, 3)."""
    m = _array(matrix, (3, 3), "matrix")
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    wx, wy, wz = (m[..., i, j] - m[..., j, i] for i, j in ((2, 1), (0, 2), (1, 0)))
    xy, xz, yz = (m[..., i, j] + m[..., j, i] for i, j in ((0, 1), (0, 2), (1, 2)))
    # The symmetric matrix 4 q q^T: its row with the largest diagonal has no cancellation.
    outer = np.stack(
        [
            np.stack([1 + xx + yy + zz, wx, wy, wz], axis=-1),
            np.stack([wx, 1 + xx - yy - zz, xy, xz], axis=-1),
            np.stack([wy, xy, 1 - xx + yy - zz, yz], axis=-1),
            np.stack([wz, xz, yz, 1 - xx - yy + zz], axis=-1),
        ],
        axis=-2,
    )
    largest = np.argmax(np.diagonal(outer, axis1=-2, axis2=-1), axis=-1)
    quat = np.take_along_axis(outer, largest[..., None, None], axis=-2)[..., 0, :]
    quat = _unit(quat, "matrix")
    return np.where(quat[..., :1] < 0, -quat, quat)


def axis_angle_to_matrix(axis_angle: ArrayLike) -> Array:
    """Rotation matrix of axis * angle [rad], (..., 3)."""
    axis_angle = _array(axis_angle, (3,), "axis-angle")
    angle = np.linalg.norm(axis_angle, axis=-1, keepdims=True)
    # np.sinc(x) = sin(pi x) / (pi x): exact at zero angle too.
    xyz = axis_angle * 0.5 * np.sinc(angle / (2 * np.pi))
    return quat_to_matrix(np.concatenate([np.cos(angle / 2), xyz], axis=-1))


def matrix_to_axis_angle(matrix: ArrayLike) -> Array:
    """Rotation axis times angle, (..., 3), with the angle in [0, pi] rad."""
    quat = matrix_to_quat(matrix)
    w, xyz = quat[..., :1], quat[..., 1:]
    sine = np.linalg.norm(xyz, axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, w)
    tiny = sine < _DEGENERATE  # angle / sin(angle / 2) -> 2
    return xyz * np.where(tiny, 2.0, angle / np.where(tiny, 1.0, sine))


def slerp(quat0: ArrayLike, quat1: ArrayLike, fraction: ArrayLike) -> Array:
    """Quaternion at `fraction` of the shorter way from `quat0` (0) to `quat1` (1).

    Shoemake 1985: sin((1 - f) a) / sin(a) q0 + sin(f a) / sin(a) q1, a the angle between them.
    """
    q0 = _unit(_array(quat0, (4,), "quaternion"), "quaternion")
    q1 = _unit(_array(quat1, (4,), "quaternion"), "quaternion")
    q1 = np.where((q0 * q1).sum(-1, keepdims=True) < 0, -q1, q1)
    f = np.asarray(fraction, dtype=np.float64)[..., None]
    # atan2 of half-chords stays exact for nearly equal quaternions, where arccos does not.
    chord, sum_ = np.linalg.norm(q1 - q0, axis=-1), np.linalg.norm(q1 + q0, axis=-1)
    angle = 2 * np.arctan2(chord, sum_)[..., None]
    tiny = angle < _DEGENERATE
    sine = np.where(tiny, 1.0, np.sin(angle))
    w0 = np.where(tiny, 1 - f, np.sin((1 - f) * angle) / sine)
    w1 = np.where(tiny, f, np.sin(f * angle) / sine)
    return _unit(w0 * q0 + w1 * q1, "interpolated quaternion")


def pose9(transform: ArrayLike) -> Array:
    """Position [m] and rot6d (..., 9) of a homogeneous transform (..., 4, 4)."""
    transform = _array(transform, (4, 4), "transform")
    return np.concatenate([transform[..., :3, 3], matrix_to_rot6d(transform[..., :3, :3])], axis=-1)


def pose9_to_matrix(pose: ArrayLike) -> Array:
    """Homogeneous transform (..., 4, 4) of position [m] and rot6d (..., 9)."""
    pose = _array(pose, (9,), "pose")
    return _homogeneous(rot6d_to_matrix(pose[..., 3:]), pose[..., :3])


def _homogeneous(rotation: Array, translation: NDArray[Any]) -> Array:
    transform = np.zeros((*rotation.shape[:-2], 4, 4))
    transform[..., :3, :3] = rotation
    transform[..., :3, 3] = translation
    transform[..., 3, 3] = 1.0
    return transform


def apply_increment(T_world_tool: ArrayLike, action: ArrayLike) -> Array:
    """T_world_tool @ Delta: the pose (..., 4, 4) after a tool-frame increment (..., 9)."""
    return _array(T_world_tool, (4, 4), "T_world_tool") @ pose9_to_matrix(action)


def increment_between(T_world_from: ArrayLike, T_world_to: ArrayLike) -> Array:
    """The tool-frame increment (..., 9) that takes one pose to the other."""
    start = _array(T_world_from, (4, 4), "T_world_from")
    end = _array(T_world_to, (4, 4), "T_world_to")
    R_from_world = np.swapaxes(start[..., :3, :3], -1, -2)
    translation = (R_from_world @ (end[..., :3, 3] - start[..., :3, 3])[..., None])[..., 0]
    return pose9(_homogeneous(R_from_world @ end[..., :3, :3], translation))


def scale_increment(action: ArrayLike, fraction: ArrayLike) -> Array:
    """The increment (..., 9) with translation and axis-angle times `fraction`."""
    action = _array(action, (9,), "action")
    f = np.asarray(fraction, dtype=np.float64)[..., None]
    axis_angle = matrix_to_axis_angle(rot6d_to_matrix(action[..., 3:])) * f
    return np.concatenate(
        [action[..., :3] * f, matrix_to_rot6d(axis_angle_to_matrix(axis_angle))], axis=-1
    )


def rot6d_places(names: Sequence[str]) -> tuple[slice, ...]:
    """Where a rot6d stands among named dimensions: runs of `ROT6D` with any common prefix."""
    places = []
    for start in range(len(names) - len(ROT6D) + 1):
        prefix = names[start].removesuffix(ROT6D[0])
        if list(names[start : start + len(ROT6D)]) == [prefix + entry for entry in ROT6D]:
            places.append(slice(start, start + len(ROT6D)))
    return tuple(places)


def orthonormalized(rot6d: ArrayLike, instead: ArrayLike) -> Array:
    """The rot6d (..., 6) of a rotation; where `rot6d` spans no plane, that of `instead`.

    A mean of rotations that lie opposite to each other spans none.
    """
    rot6d, instead = _array(rot6d, (6,), "rot6d"), _array(instead, (6,), "rot6d")
    area = np.linalg.norm(np.cross(rot6d[..., :3], rot6d[..., 3:]), axis=-1, keepdims=True)
    return matrix_to_rot6d(rot6d_to_matrix(np.where(area > _PLANELESS, rot6d, instead)))
