"""Nodes in a test run in real time, also while the rest of the tests keeps every core busy."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _realtime_priority() -> Iterator[None]:
    """Threads that the test starts inherit it; where it is not permitted, tests may be slower."""
    before = os.sched_getscheduler(0)
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(5))
    except PermissionError:
        yield
        return
    yield
    os.sched_setscheduler(0, before, os.sched_param(0))
