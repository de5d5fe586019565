"""Which actions will have been executed by the time a new chunk comes into force."""

from __future__ import annotations

import logging
import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from deploy.chunk import ROUNDING, ActionChunk

LOG = logging.getLogger(__name__)


class ChunksInForce:
    """The chunks of the past with the stamps at which they come into force.

        chunk 1     |----####|----------|        # executed
        chunk 2          |---####|----------|
        chunk 3              |---###########|    expected to be in force by now
        known                    [###)           of a chunk made now, with the same delay

    With a delay longer than a tick several chunks may be on their way at once.
    """

    def __init__(self) -> None:
        self._entries: deque[tuple[float, ActionChunk]] = deque()
        self._has_warned = False

    def reset(self) -> None:
        """Forget all chunks."""
        self._entries.clear()

    def add(self, chunk: ActionChunk, in_force: float) -> None:
        """`chunk` replaces the others from `in_force` [s] on."""
        self._entries.append((in_force, chunk))

    def known(self, stamp: float, dt: float, count: int) -> NDArray[np.float64]:
        """Actions (n, A) for `stamp`, `stamp` + dt, ..., n at most `count` and as far as known.

        Stamps must not fall: chunks that no later one will ask for are forgotten.
        """
        while len(self._entries) > 1 and self._entries[1][0] <= stamp + ROUNDING * dt:
            self._entries.popleft()
        rows: list[NDArray[np.float64]] = []
        for when in (stamp + index * dt for index in range(count)):
            begun = [chunk for start, chunk in self._entries if start <= when + ROUNDING * dt]
            if not begun or begun[-1].remaining(when) == 0:
                break
            rows.append(begun[-1].actions_from(when)[0])
        return np.array(rows)

    def covered(self, delay: float, dt: float, most: int) -> int:
        """Actions that begin before `delay` [s] is over, at most `most`; once a warning if cut."""
        ticks = max(0, math.ceil(delay / dt - ROUNDING))
        if ticks > most and not self._has_warned:
            self._has_warned = True
            LOG.warning(
                "a delay of %d ticks is beyond the %d that the policy was trained for: actions "
                "after these are not kept. Train with a larger levels.max_delay.",
                ticks,
                most,
            )
        return min(ticks, most)
