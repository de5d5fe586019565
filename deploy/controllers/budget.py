"""The time of one update: how much of it is left, and how many steps of a solve fit into it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from deploy.latency import SlidingQuantile

WINDOW = 200  # durations of a part that are remembered
WARM_UPS = 3

T = TypeVar("T")


class StepBudget:
    """What fits before the deadline, by the 99th percentile of what each part took lately.

        start     encode     begin  step  step  finish    deadline
        |---------|----------|------|-----|-----|------|..|

    Args:
        deadline: Of an update, from its start [s].
        clock: Seconds that never go back; a test moves its own.
    """

    def __init__(self, deadline: float, clock: Callable[[], float] = time.perf_counter) -> None:
        if not deadline > 0:
            raise ValueError(f"a deadline must be above 0 s, got {deadline}.")
        self.deadline, self._clock = deadline, clock
        self._parts: dict[str, SlidingQuantile] = {}
        self.start()

    def start(self) -> None:
        """An update begins."""
        self._due = self._clock() + self.deadline

    @property
    def left(self) -> float:
        """Seconds until the deadline, negative after it."""
        return self._due - self._clock()

    def run(self, part: str, work: Callable[[], T]) -> T:
        """What `work` gives; how long it took is remembered as a duration of `part`."""
        started = self._clock()
        result = work()
        self._window(part).add(self._clock() - started)
        return result

    def expected(self, *parts: str) -> float:
        """99th percentiles of what `parts` took lately, together [s]; 0 for what is not known."""
        return sum(self._window(part).value for part in parts)

    def allows(self, *parts: str) -> bool:
        """True if one each of `parts` is expected to end before the deadline."""
        return self.expected(*parts) <= self.left

    def count(self, part: str, wanted: int, *others: str) -> int:
        """How often `part` fits beside one each of `others`, at most `wanted` times."""
        room, each = self.left - self.expected(*others), self.expected(part)
        if each <= 0:
            return wanted
        return min(wanted, max(0, int(room / each)))

    def _window(self, part: str) -> SlidingQuantile:
        window = self._parts.get(part)
        if window is None:
            window = self._parts[part] = SlidingQuantile(0.99, WINDOW, WARM_UPS)
        return window
