"""Raw observations, one a tick, to the windowed observation that a policy sees."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.spec import DataSpec, Horizons, Obs

# The window slides through a buffer this many times its length before it is moved to the front.
_SLACK = 8


class ObsHistory:
    """The last observations of an episode; equals the windows that training reads.

    Before the start of the episode the first observation (fast modality: first sample) is repeated.
    """

    def __init__(self, spec: DataSpec, horizons: Horizons) -> None:
        self.spec, self.horizons = spec, horizons
        self._tracks = {
            key: _Track(
                obs.shape,
                obs.dtype,
                horizons.window if spec.is_fast(key) else horizons.obs,
                spec.samples_per_tick(key),
            )
            for key, obs in spec.obs.items()
        }
        self._empty = True

    def reset(self) -> None:
        """Forget everything; for the start of an episode."""
        self._empty = True

    def push(self, obs: Obs) -> None:
        """Append one tick's raw observation; keys outside the spec are ignored."""
        self.spec.check_obs(obs)
        for key, track in self._tracks.items():
            track.push(np.asarray(obs[key]), first=self._empty)
        self._empty = False

    def windowed(self, copy: bool = True) -> Obs:
        """Image and state (To, ...), fast modality (W, ...), oldest first.

        Args:
            copy: False gives views that are only good until the next `push`.
        """
        if self._empty:
            raise ValueError("there is no observation yet; push the first one after reset.")
        views = {key: track.window() for key, track in self._tracks.items()}
        return {key: view.copy() for key, view in views.items()} if copy else views


class _Track:
    """The last `length` samples of one key, always contiguous in memory."""

    def __init__(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], length: int, samples: int
    ) -> None:
        self._length, self._samples = length, samples
        self._buffer: NDArray[Any] = np.zeros((_SLACK * (length + samples), *shape), dtype)
        self._end = 0

    def push(self, value: NDArray[Any], first: bool) -> None:
        """Append `samples` samples; the first ones fill the window with their oldest."""
        if self._samples == 1:
            value = value[None]
        if first:
            self._buffer[: self._length] = value[0]
            self._end = self._length
        elif self._end + self._samples > len(self._buffer):
            self._buffer[: self._length] = self.window()
            self._end = self._length
        self._buffer[self._end : self._end + self._samples] = value
        self._end += self._samples

    def window(self) -> NDArray[Any]:
        """View of the last `length` samples."""
        return self._buffer[self._end - self._length : self._end]
