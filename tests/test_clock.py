"""Clocks."""

from __future__ import annotations

import time

import pytest

from deploy.clock import Clock, MonotonicClock, SimClock


@pytest.mark.parametrize("clock", [MonotonicClock(), SimClock(3.0)])
def test_sleep_until_returns_at_the_stamp_and_never_before(clock: Clock) -> None:
    until = clock.now() + 0.02
    clock.sleep_until(until)
    assert clock.now() >= until


@pytest.mark.parametrize("clock", [MonotonicClock(), SimClock(3.0)])
def test_sleep_until_the_past_returns_at_once_and_time_does_not_go_back(clock: Clock) -> None:
    before = clock.now()
    clock.sleep_until(before - 100.0)
    assert before <= clock.now() < before + 1.0


def test_monotonic_clock_shares_its_stamps_with_time_monotonic() -> None:
    assert abs(MonotonicClock().now() - time.monotonic()) < 0.1


def test_sim_clock_moves_only_when_slept_on() -> None:
    clock = SimClock()
    assert clock.now() == clock.now() == 0.0
    clock.sleep_until(1.5)
    assert clock.now() == 1.5
