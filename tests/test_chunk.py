"""Chunks in time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.chunk import ActionChunk

ACTIONS = np.array([[0.0, 5.0], [1.0, 4.0], [2.0, 3.0], [4.0, 0.0]])


def chunk(t0: float = 2.0, dt: float = 0.1) -> ActionChunk:
    return ActionChunk(ACTIONS, t0, dt)


@pytest.mark.parametrize("index", range(4))
def test_an_action_holds_from_its_stamp_until_just_before_the_next(index: int) -> None:
    plan = chunk()
    begin = plan.t0 + index * plan.dt
    for stamp in (begin, begin + 0.05, begin + 0.0999):
        np.testing.assert_array_equal(plan.at(stamp), ACTIONS[index])


def test_before_the_start_is_the_first_action_and_after_the_end_the_last() -> None:
    np.testing.assert_array_equal(chunk().at(-1.0), ACTIONS[0])
    np.testing.assert_array_equal(chunk().at(99.0), ACTIONS[-1])


@given(ticks=st.integers(0, 10_000), shift=st.integers(0, 6), later=st.integers(0, 20))
def test_shift_keeps_absolute_time(ticks: int, shift: int, later: int) -> None:
    plan = chunk(t0=ticks * 0.1)
    shifted = plan.shifted_to((ticks + shift) * 0.1)
    stamp = (ticks + shift + later) * 0.1 + 0.03
    np.testing.assert_allclose(shifted.at(stamp), plan.at(stamp), atol=1e-9)
    assert shifted.t0 == (ticks + shift) * 0.1


@given(offset=st.floats(0.0, 5.0), index=st.integers(0, 3))
def test_fractional_shift_interpolates_linearly_and_repeats_the_tail(
    offset: float, index: int
) -> None:
    shifted = chunk().shifted_to(2.0 + offset * 0.1)
    wanted = [np.interp(index + offset, np.arange(4), column) for column in ACTIONS.T]
    np.testing.assert_allclose(shifted.actions[index], wanted, atol=1e-5)


def test_shift_to_its_own_start_changes_nothing() -> None:
    np.testing.assert_array_equal(chunk().shifted_to(2.0).actions, ACTIONS)


def test_remaining_counts_down_to_zero_and_stays_there() -> None:
    plan = chunk()
    assert plan.remaining(2.0) == pytest.approx(0.4)
    assert plan.remaining(2.3) == pytest.approx(0.1)
    assert plan.remaining(2.4) == 0.0
    assert plan.remaining(9.0) == 0.0


def test_a_chunk_cannot_be_changed_from_outside() -> None:
    actions = ACTIONS.copy()
    plan = ActionChunk(actions, 0.0, 0.1)
    actions[:] = 7.0
    np.testing.assert_array_equal(plan.actions, ACTIONS)
    with pytest.raises(ValueError, match="read-only"):
        plan.actions[0, 0] = 1.0


@pytest.mark.parametrize(
    ("actions", "dt", "word"),
    [(np.zeros(3), 0.1, "Tp, A"), (np.zeros((0, 2)), 0.1, "Tp, A"), (ACTIONS, 0.0, "dt > 0")],
)
def test_what_is_no_chunk_is_refused(
    actions: np.typing.NDArray[np.float64], dt: float, word: str
) -> None:
    with pytest.raises(ValueError, match=word):
        ActionChunk(actions, 0.0, dt)
