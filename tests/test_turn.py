"""A single rotation in plain numbers against `data.rotation`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.rotation import axis_angle_to_matrix, matrix_to_rot6d, scale_increment
from deploy.turn import Turn


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 1e-10, 1e-4, 0.3, 2.0, 3.1, np.pi - 1e-7]),
    st.floats(0, 1),
)
def test_part_of_a_turn_is_that_of_the_array_code(seed: int, angle: float, part: float) -> None:
    axis = np.random.default_rng(seed).normal(size=3)
    axis /= np.linalg.norm(axis)
    rot6d = matrix_to_rot6d(axis_angle_to_matrix(axis * angle))
    turn = Turn(rot6d.tolist())
    assert turn.angle == pytest.approx(angle, abs=1e-7)
    wanted = scale_increment(np.concatenate([np.zeros(3), rot6d]), part)[3:]
    np.testing.assert_allclose(turn.times(part), wanted, atol=1e-7)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_any_two_columns_make_a_rotation(seed: int) -> None:
    columns = np.array(Turn(np.random.default_rng(seed).normal(size=6).tolist()).rot6d)
    columns = columns.reshape(2, 3)
    np.testing.assert_allclose(columns @ columns.T, np.eye(2), atol=1e-12)


@pytest.mark.parametrize("rot6d", [[0] * 6, [1, 0, 0, 2, 0, 0], [float("nan")] * 6])
def test_what_is_no_rotation_is_refused(rot6d: list[float]) -> None:
    with pytest.raises(ValueError, match="no rotation"):
        Turn(rot6d)
