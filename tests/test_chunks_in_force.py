"""The actions that will have been executed before a new chunk comes into force."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from deploy.chunk import ActionChunk
from deploy.controllers.chunks_in_force import ChunksInForce

DT = 0.1


def chunk(number: int, tick: float, length: int = 8) -> ActionChunk:
    """Action i of chunk n is (n, i)."""
    actions = np.stack([np.full(length, number), np.arange(length)], 1).astype(float)
    return ActionChunk(actions, tick * DT, DT)


def known(executed: ChunksInForce, tick: float, count: int) -> list[list[float]]:
    rows: list[list[float]] = np.round(executed.known(tick * DT, DT, count), 6).tolist()
    return rows


def test_before_the_first_chunk_nothing_is_known() -> None:
    executed = ChunksInForce()
    assert known(executed, 0, 3) == []
    executed.add(chunk(1, 0), 2 * DT)
    assert known(executed, 1, 3) == []  # tick 1 has no action: what comes after it is no prefix
    assert known(executed, 2, 3) == [[1, 2], [1, 3], [1, 4]]


def test_each_tick_is_taken_from_the_chunk_that_is_in_force_then() -> None:
    executed = ChunksInForce()
    for tick in range(4):
        executed.add(chunk(tick, tick), (tick + 3) * DT)
    assert known(executed, 4, 3) == [[1, 3], [2, 3], [3, 3]]


def test_a_plan_ends_what_is_known() -> None:
    executed = ChunksInForce()
    executed.add(chunk(1, 0), 0)
    assert known(executed, 6, 4) == [[1, 6], [1, 7]]


def test_between_ticks_actions_are_interpolated() -> None:
    executed = ChunksInForce()
    executed.add(chunk(1, 0), 0)
    assert known(executed, 2.5, 2) == [[1, 2.5], [1, 3.5]]


def test_reset_forgets() -> None:
    executed = ChunksInForce()
    executed.add(chunk(1, 0), 0)
    executed.reset()
    assert known(executed, 1, 2) == []


def test_old_chunks_are_not_kept() -> None:
    executed = ChunksInForce()
    for tick in range(100):
        executed.add(chunk(tick, tick), (tick + 2) * DT)
        executed.known(tick * DT, DT, 2)
    assert len(executed._entries) <= 4


@pytest.mark.parametrize(
    ("delay", "ticks"), [(0.0, 0), (0.1, 1), (0.3, 3), (0.31, 4), (0.05, 1), (-0.1, 0)]
)
def test_a_delay_is_rounded_up_to_ticks(delay: float, ticks: int) -> None:
    assert ChunksInForce().covered(delay, DT, 8) == ticks


def test_a_delay_beyond_the_trained_one_is_cut_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    executed = ChunksInForce()
    with caplog.at_level(logging.WARNING):
        assert [executed.covered(0.5, DT, 3) for _ in range(4)] == [3] * 4
    assert len(caplog.messages) == 1
    assert "a delay of 5 ticks is beyond the 3 that the policy was trained for" in caplog.text
