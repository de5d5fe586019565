"""Time, as the loops see it: the machine's monotonic clock, or one that a test moves."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds that never go back."""

    def now(self) -> float:
        """Stamp [s]."""
        ...

    def sleep_until(self, stamp: float) -> None:
        """Return at `stamp`, or at once if it has passed."""
        ...


class MonotonicClock:
    """`time.monotonic`; wall-clock time can jump, and a jump must never move a robot."""

    def now(self) -> float:
        """Stamp [s]."""
        return time.monotonic()

    def sleep_until(self, stamp: float) -> None:
        """Sleep until `stamp`, or not at all if it has passed."""
        time.sleep(max(0.0, stamp - time.monotonic()))


class SimClock:
    """A clock that moves only when it is slept on."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start

    def now(self) -> float:
        """Stamp [s]."""
        return self._now

    def sleep_until(self, stamp: float) -> None:
        """Jump to `stamp`; never back."""
        self._now = max(self._now, stamp)
