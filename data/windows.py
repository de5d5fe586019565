"""Which rows make a window: index arithmetic alone, for any storage.

Every tick of every episode starts one window. With obs horizon 2, pred horizon 4, tick t:

    rows       t-1   t   t+1  t+2  t+3
    obs        [o    o]
    action          [a    a    a    a]
    fast    ..ssss ssss]                 the last W samples, r a tick

Before the start of an episode its first row (fast modality: its first sample) is repeated. Past
the end its last action is repeated, and is as valid as that last row: an episode that ended
standing still says "stand still" for ever, a deliberate mistake at the end says nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data.spec import Horizons

Index = NDArray[np.int64]


class WindowIndex:
    """Rows of window i, for arrays of i at once; all results are (B, horizon) int64."""

    def __init__(self, episode_ends: Index, horizons: Horizons) -> None:
        ends = np.asarray(episode_ends, dtype=np.int64)
        lengths = np.diff(ends, prepend=0)
        if ends.ndim != 1 or not np.all(lengths > 0):
            raise ValueError(f"episode ends must rise from above 0, got {ends.tolist()[:20]}.")
        self.horizons = horizons
        # Per row: where its episode starts and ends. Two integers a row, nothing to search.
        self._starts: Index = np.repeat(ends - lengths, lengths)
        self._ends: Index = np.repeat(ends, lengths)

    def __len__(self) -> int:
        return len(self._ends)

    def obs_rows(self, windows: Index) -> Index:
        """Rows of the To observations that end at the window's tick."""
        return self._history(windows, self.horizons.obs, samples=1)

    def fast_samples(self, windows: Index, samples_per_tick: int) -> Index:
        """The W last samples; sample s lies in row s // r at place s % r."""
        return self._history(windows, self.horizons.window, samples_per_tick)

    def action_rows(self, windows: Index) -> Index:
        """Rows of the Tp actions that start at the window's tick; they give `valid` as well."""
        windows = np.asarray(windows, dtype=np.int64)[:, None]
        rows = windows + np.arange(self.horizons.pred)
        clipped: Index = np.minimum(rows, self._ends[windows] - 1)
        return clipped

    def _history(self, windows: Index, length: int, samples: int) -> Index:
        windows = np.asarray(windows, dtype=np.int64)[:, None]
        last = (windows + 1) * samples - 1
        rows = last - np.arange(length)[::-1]
        clipped: Index = np.maximum(rows, self._starts[windows] * samples)
        return clipped
