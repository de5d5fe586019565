"""Window rows, against a loop that builds each window row by row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.spec import Horizons
from data.windows import WindowIndex

lengths = st.lists(st.integers(1, 9), min_size=1, max_size=6)
horizons = st.builds(Horizons, st.integers(1, 4), st.integers(1, 6), st.integers(1, 20))


def clipped(row: int, start: int, end: int) -> int:
    return min(max(row, start), end - 1)


@given(lengths, horizons, st.integers(1, 5))
def test_every_tick_of_every_episode_starts_one_window(
    lengths: list[int], horizons: Horizons, rate: int
) -> None:
    ends = np.cumsum(lengths)
    index = WindowIndex(ends, horizons)
    assert len(index) == sum(lengths)
    windows = np.arange(len(index))
    obs, fast = index.obs_rows(windows), index.fast_samples(windows, rate)
    actions = index.action_rows(windows)
    tick = 0
    for length, end in zip(lengths, ends.tolist(), strict=True):
        start = end - length
        for t in range(start, end):
            span = range(t - horizons.obs + 1, t + 1)
            assert obs[tick].tolist() == [clipped(r, start, end) for r in span]
            last = (t + 1) * rate
            span = range(last - horizons.window, last)
            assert fast[tick].tolist() == [clipped(s, start * rate, end * rate) for s in span]
            span = range(t, t + horizons.pred)
            assert actions[tick].tolist() == [clipped(r, start, end) for r in span]
            tick += 1


def test_the_last_action_is_repeated_with_its_own_validity() -> None:
    index = WindowIndex(np.array([3, 5]), Horizons(1, 4, 1))
    valid = np.array([True, False, True, True, False])
    assert valid[index.action_rows(np.array([1]))].tolist() == [[False, True, True, True]]
    assert valid[index.action_rows(np.array([3]))].tolist() == [[True, False, False, False]]


def test_windows_come_in_the_order_asked_for() -> None:
    index = WindowIndex(np.array([3, 5]), Horizons(2, 2, 3))
    assert index.obs_rows(np.array([4, 0, 3])).tolist() == [[3, 4], [0, 0], [3, 3]]


@pytest.mark.parametrize("ends", [[0], [3, 3], [4, 2], [[1]]])
def test_episode_ends_must_rise(ends: list[int]) -> None:
    with pytest.raises(ValueError, match="episode ends"):
        WindowIndex(np.array(ends), Horizons())


def test_a_dataset_without_episodes_has_no_windows() -> None:
    assert len(WindowIndex(np.array([], np.int64), Horizons())) == 0
