"""Threads stay on the cores that they are given, and so do those that they start."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from deploy.placement import Placement, pin_thread, pinned

CORES = sorted(os.sched_getaffinity(0))


def here() -> set[int]:
    return os.sched_getaffinity(0)


def in_a_thread(work: Any, *arguments: Any) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work, *arguments).result()


def test_only_the_thread_that_asks_is_pinned() -> None:
    def pin() -> set[int]:
        pin_thread(CORES[:1])
        return here()

    assert in_a_thread(pin) == {CORES[0]}
    assert here() == set(CORES)


def test_threads_started_while_pinned_stay_there_and_the_starter_comes_back() -> None:
    with pinned(CORES[-1:]):
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(here).result() == {CORES[-1]}
        assert here() == {CORES[-1]}
    assert here() == set(CORES)


def test_null_changes_nothing() -> None:
    with pinned(None):
        assert here() == set(CORES)
    pin_thread(None)
    assert here() == set(CORES)


@pytest.mark.parametrize("cores", [[], [CORES[0], 4095], [10**9], [-1], 1, ["a"], [0.5]])
def test_cores_that_are_not_there_are_refused_when_settings_are_read(cores: Any) -> None:
    with pytest.raises(ValueError, match=r"this process runs on \[.*give a list of some of them"):
        Placement(command=cores)
    assert here() == set(CORES)
