"""Rotations against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from data import rotation as rot

Array = NDArray[np.float64]

unit_floats = st.floats(-1, 1, allow_nan=False)
# Angles from far below the square root of machine precision up to pi itself.
angles = st.one_of(st.floats(0, np.pi), st.floats(0, 1e-7), st.floats(np.pi - 1e-7, np.pi))


@st.composite
def rotations(draw: st.DrawFn) -> Rotation:
    axis = np.array(draw(st.tuples(unit_floats, unit_floats, unit_floats)))
    norm = np.linalg.norm(axis)
    axis = axis / norm if norm > 1e-3 else np.array([0.0, 0.0, 1.0])
    return Rotation.from_rotvec(axis * draw(angles))


@st.composite
def transforms(draw: st.DrawFn) -> Array:
    T = np.eye(4)
    T[:3, :3] = draw(rotations()).as_matrix()
    T[:3, 3] = draw(st.tuples(unit_floats, unit_floats, unit_floats))
    return T


def close(got: Array, wanted: Array, atol: float = 1e-9) -> None:
    np.testing.assert_allclose(got, wanted, rtol=0, atol=atol)


def wxyz(rotation: Rotation) -> Array:
    return rotation.as_quat(scalar_first=True)


@given(rotations())
def test_rot6d_and_matrix_are_inverse(r: Rotation) -> None:
    rot6d = rot.matrix_to_rot6d(r.as_matrix())
    close(rot6d, np.concatenate([r.as_matrix()[:, 0], r.as_matrix()[:, 1]]))
    close(rot.rot6d_to_matrix(rot6d), r.as_matrix())


@given(st.lists(unit_floats, min_size=6, max_size=6))
def test_any_six_numbers_give_a_rotation_or_an_error(values: list[float]) -> None:
    try:
        matrix = rot.rot6d_to_matrix(values)
    except ValueError:
        return
    close(matrix @ matrix.T, np.eye(3), 1e-6)
    assert np.linalg.det(matrix) == pytest.approx(1.0, abs=1e-6)


@given(rotations())
def test_quaternion_of_a_matrix_is_scipys(r: Rotation) -> None:
    quat = rot.matrix_to_quat(r.as_matrix())
    assert quat[0] >= 0
    assert abs(quat @ wxyz(r)) == pytest.approx(1.0, abs=1e-12)
    close(rot.quat_to_matrix(wxyz(r)), r.as_matrix())


@given(rotations())
def test_axis_angle_is_scipys(r: Rotation) -> None:
    close(rot.axis_angle_to_matrix(r.as_rotvec()), r.as_matrix())
    axis_angle = rot.matrix_to_axis_angle(r.as_matrix())
    assert np.linalg.norm(axis_angle) <= np.pi + 1e-9
    # At pi both signs of the axis are right, so rotations are compared and not vectors.
    close(Rotation.from_rotvec(axis_angle).as_matrix(), r.as_matrix(), 2e-8)


@given(rotations(), rotations(), st.floats(0, 1))
def test_slerp_is_scipys(a: Rotation, b: Rotation, fraction: float) -> None:
    if (a.inv() * b).magnitude() > np.pi - 1e-3:
        return  # the shorter way is not unique
    wanted = Slerp([0, 1], Rotation.concatenate([a, b]))(fraction).as_matrix()
    close(rot.quat_to_matrix(rot.slerp(wxyz(a), -wxyz(b), fraction)), wanted, 1e-7)


def test_slerp_keeps_a_constant_angular_speed() -> None:
    start, end = wxyz(Rotation.identity()), wxyz(Rotation.from_rotvec([0, 0, 2.0]))
    for fraction in (0.0, 0.25, 0.5, 1.0):
        axis_angle = rot.matrix_to_axis_angle(rot.quat_to_matrix(rot.slerp(start, end, fraction)))
        close(axis_angle, np.array([0, 0, 2.0 * fraction]))


@given(transforms())
def test_pose9_and_matrix_are_inverse(T: Array) -> None:
    close(rot.pose9_to_matrix(rot.pose9(T)), T)


@given(transforms(), transforms())
def test_the_increment_between_two_poses_leads_from_one_to_the_other(A: Array, B: Array) -> None:
    close(rot.apply_increment(A, rot.increment_between(A, B)), B)


@given(transforms(), transforms())
def test_an_increment_is_in_the_tool_frame(A: Array, B: Array) -> None:
    close(rot.apply_increment(A, rot.pose9(B)), A @ B)


@given(transforms())
def test_scaling_by_one_changes_nothing_and_by_zero_stands_still(T: Array) -> None:
    action = rot.pose9(T)
    close(rot.scale_increment(action, 1.0), action, 1e-7)
    close(rot.scale_increment(action, 0.0), np.array([0, 0, 0, 1, 0, 0, 0, 1, 0]))


@given(rotations(), st.integers(1, 8))
def test_n_parts_of_a_rotation_make_the_whole(r: Rotation, n: int) -> None:
    T = np.eye(4)
    T[:3, :3] = r.as_matrix()
    part = rot.pose9_to_matrix(rot.scale_increment(rot.pose9(T), 1 / n))
    close(np.linalg.matrix_power(part, n), T, 1e-6)


def test_leading_dimensions_are_a_batch() -> None:
    rng = np.random.default_rng(0)
    r = Rotation.random(12, rng=rng)
    matrices = r.as_matrix().reshape(3, 4, 3, 3)
    quats = rot.matrix_to_quat(matrices)
    T = np.tile(np.eye(4), (3, 4, 1, 1))
    T[..., :3, :3], T[..., :3, 3] = matrices, rng.normal(size=(3, 4, 3))
    close(rot.quat_to_matrix(quats), matrices)
    close(rot.axis_angle_to_matrix(rot.matrix_to_axis_angle(matrices)), matrices)
    close(rot.rot6d_to_matrix(rot.matrix_to_rot6d(matrices)), matrices)
    assert rot.slerp(quats, quats[::-1], np.full((3, 4), 0.5)).shape == (3, 4, 4)
    close(rot.apply_increment(T, rot.increment_between(T, T[::-1])), T[::-1])
    assert rot.scale_increment(rot.pose9(T), 0.5).shape == (3, 4, 9)


def test_float32_actions_are_computed_in_float64() -> None:
    action = np.array([0, 0, 0, 1, 1e-3, 0, 0, 1, 0], np.float32)
    T = rot.apply_increment(np.eye(4, dtype=np.float32), action)
    assert T.dtype == np.float64
    close(T[:3, :3] @ T[:3, :3].T, np.eye(3), 1e-15)


@pytest.mark.parametrize(
    "rot6d", [[0] * 6, [1, 0, 0, 2, 0, 0], [1, 0, 0, 0, 0, 0], [np.nan, 0, 0, 0, 1, 0]]
)
def test_columns_that_span_no_plane_are_an_error(rot6d: list[float]) -> None:
    with pytest.raises(ValueError, match="no rotation"):
        rot.rot6d_to_matrix(rot6d)


def test_a_zero_quaternion_is_an_error() -> None:
    with pytest.raises(ValueError, match="no rotation"):
        rot.quat_to_matrix([0, 0, 0, 0])


def test_a_wrong_shape_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"action|pose"):
        rot.apply_increment(np.eye(4), np.zeros(7))


def test_places_of_rot6d_are_found_by_name() -> None:
    two = [f"{hand}_{entry}" for hand in ("left", "right") for entry in ("dx", *rot.ROT6D)]
    assert rot.rot6d_places(two) == (slice(1, 7), slice(8, 14))
    assert rot.rot6d_places(("dx", "dy", *rot.ROT6D, "grip")) == (slice(2, 8),)
    assert rot.rot6d_places(("dx", *reversed(rot.ROT6D))) == ()
    assert rot.rot6d_places(()) == ()


@given(rotations(), rotations(), st.floats(0, 1))
def test_weighted_means_are_made_rotations(a: Rotation, b: Rotation, weight: float) -> None:
    one, two = (rot.matrix_to_rot6d(r.as_matrix()) for r in (a, b))
    matrix = rot.rot6d_to_matrix(rot.orthonormalized(weight * one + (1 - weight) * two, two))
    close(matrix @ matrix.T, np.eye(3), 1e-6)
    close(rot.orthonormalized(np.zeros(6), two), two)
