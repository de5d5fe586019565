"""How long planning takes: a percentile over the recent past."""

from __future__ import annotations

from collections import deque

import numpy as np


class LatencyWindow:
    """Sliding 95th percentile of durations [s], without the first `warmup` ones.

    A running maximum would never forget one slow call, and a first call pays for allocation and
    caches: both would push every later plan needlessly far into the future.
    """

    def __init__(self, size: int = 100, warmup: int = 3, initial: float = 0.0) -> None:
        if size < 1 or warmup < 0:
            raise ValueError(f"a window needs size >= 1 and warmup >= 0, got {size} and {warmup}.")
        self._values: deque[float] = deque(maxlen=size)
        self._to_skip = warmup
        self._p95 = initial

    def add(self, seconds: float) -> None:
        """Take one duration into account."""
        if self._to_skip:
            self._to_skip -= 1
            return
        self._values.append(seconds)
        self._p95 = float(np.percentile(self._values, 95))

    @property
    def p95(self) -> float:
        """95th percentile of the window [s]; `initial` while it is empty."""
        return self._p95

    def __len__(self) -> int:
        return len(self._values)
