"""How long things take: a quantile over the recent past, kept sorted so that asking is free."""

from __future__ import annotations

import bisect
from collections import deque


class SlidingQuantile:
    """The `quantile` of the newest `size` durations [s], without the first `warmup` ones.

    A running maximum would never forget one slow call, and a first call pays for allocation and
    caches: both would say for ever that everything is slow. A new value costs a microsecond, where
    sorting the window anew costs fifty.
    """

    def __init__(
        self, quantile: float, size: int = 100, warmup: int = 3, initial: float = 0.0
    ) -> None:
        """`initial` is the answer while nothing is known."""
        if not 0 <= quantile <= 1:
            raise ValueError(f"a quantile lies in 0..1, got {quantile}.")
        if size < 1 or warmup < 0:
            raise ValueError(f"a window needs size >= 1 and warmup >= 0, got {size} and {warmup}.")
        self._quantile, self._size = quantile, size
        self._newest: deque[float] = deque()
        self._sorted: list[float] = []
        self._to_skip, self._value = warmup, initial

    def add(self, seconds: float) -> None:
        """Take one duration into account."""
        if self._to_skip:
            self._to_skip -= 1
            return
        if len(self._newest) == self._size:
            del self._sorted[bisect.bisect_left(self._sorted, self._newest.popleft())]
        self._newest.append(seconds)
        bisect.insort(self._sorted, seconds)
        self._value = self.at(self._quantile)

    @property
    def value(self) -> float:
        """The quantile [s]; `initial` while the window is empty."""
        return self._value

    def at(self, quantile: float) -> float:
        """Another quantile of the same window [s], linear between values; it must not be empty."""
        position = quantile * (len(self._sorted) - 1)
        below = int(position)
        above = min(below + 1, len(self._sorted) - 1)
        low, high = self._sorted[below], self._sorted[above]
        return low + (position - below) * (high - low)

    def __len__(self) -> int:
        return len(self._newest)


class LatencyWindow(SlidingQuantile):
    """Sliding 95th percentile of how long a plan takes: where the next one comes into force."""

    def __init__(self, size: int = 100, warmup: int = 3, initial: float = 0.0) -> None:
        super().__init__(0.95, size, warmup, initial)

    @property
    def p95(self) -> float:
        """95th percentile of the window [s]; `initial` while it is empty."""
        return self.value
