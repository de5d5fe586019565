"""Streams of stamped samples to one observation per policy tick."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.spec import DataSpec, Obs
from deploy.ros2.settings import SensorLimits

SECONDS_KEPT = 2.0
FUTURE = 0.05  # [s]; a stamp further ahead means that two machines' clocks disagree


class Stream:
    """The recent samples of one topic, in the order of their stamps [s]."""

    def __init__(self, rate_hz: float) -> None:
        self.stamps: deque[float] = deque()
        self.values: deque[NDArray[Any]] = deque()
        self._nominal = 1 / rate_hz

    def add(self, stamp: float, value: NDArray[Any]) -> bool:
        """Append a sample; False for one that is not newer than the newest."""
        if self.stamps and stamp <= self.stamps[-1]:
            return False
        self.stamps.append(stamp)
        self.values.append(value)
        while self.stamps[0] < stamp - SECONDS_KEPT:
            self.stamps.popleft()
            self.values.popleft()
        return True

    def interval(self) -> float:
        """Typical distance of samples [s], at most that of the spec."""
        if len(self.stamps) < 3:
            return self._nominal
        return min(self._nominal, float(np.median(np.diff(self.stamps))))

    def reaches(self, stamp: float) -> bool:
        """True once the sample nearest to `stamp` cannot be a coming one."""
        return bool(self.stamps) and self.stamps[-1] >= stamp - self.interval() / 2

    def nearest(self, stamps: NDArray[np.float64], within: float) -> NDArray[np.int64]:
        """Index of the sample nearest to each of `stamps` (n,); -1 where none is `within` [s]."""
        distance = np.abs(np.subtract.outer(stamps, np.array(self.stamps)))  # (n, samples)
        index = distance.argmin(axis=1)
        near = distance[np.arange(len(stamps)), index] <= within
        return np.where(near, index, -1)


class ObservationBuffer:
    """Callbacks `add`, the planner `take`s: raw observations, oldest first, each one once.

        wrist   |               |               s           the reference: the first image key
        scene   |               |                |          nearest, within half a tick
        pose    .  .  .  .  .  .  .  .  .  .  .  .          nearest
        wrench  . . . . . . . . . . . . . . . . .           the r samples up to s, lost ones filled

    An observation with more than `max_filled` lost wrench samples, or without an image or pose near
    its stamp, is dropped and counted.
    """

    def __init__(self, spec: DataSpec, limits: SensorLimits) -> None:
        self._spec, self._limits = spec, limits
        self._tick = 1 / spec.rate_hz
        images = [key for key, value in spec.obs.items() if value.modality == "image"]
        self._reference = (images or list(spec.obs))[0]
        self._lock = threading.Lock()
        self.clear(0.0)

    def clear(self, since: float) -> None:
        """Forget everything; samples with stamps before `since` [s] are ignored from now on."""
        with self._lock:
            self._streams = {key: Stream(value.rate_hz) for key, value in self._spec.obs.items()}
            self._newest: dict[str, float] = {}  # read without the lock by the command thread
            self._since, self._last = since, -np.inf
            self.dropped = self.filled = self.out_of_order = 0

    def add(self, key: str, stamp: float, value: NDArray[Any]) -> None:
        """Take in one sample."""
        with self._lock:
            if stamp < self._since:
                return
            if self._streams[key].add(stamp, value):
                self._newest[key] = stamp
            else:
                self.out_of_order += 1

    def newest(self, key: str) -> NDArray[Any] | None:
        """The newest sample of `key`, or None."""
        with self._lock:
            values = self._streams[key].values
            return values[-1] if values else None

    def stale(self, now: float) -> str | None:
        """Which sensor is too old to act on at `now` [s], in words; None if all are fresh."""
        for key, spec in self._spec.obs.items():
            age = now - self._newest.get(key, -np.inf)
            limit = self._limits.age_of(spec.modality)
            if age > limit:
                seen = f"is {age:.3f} s old" if np.isfinite(age) else "has not come yet"
                return f"{key} {seen} (limit {limit} s)"
            if age < -FUTURE:
                return f"{key} is stamped {-age:.3f} s ahead; synchronise the machines' clocks"
        return None

    def take(self) -> tuple[Obs, float] | None:
        """The next observation and its stamp [s], or None while there is no complete one."""
        with self._lock:
            reference = self._streams[self._reference]
            if not reference.stamps or reference.stamps[-1] <= self._last:
                return None
            while (stamp := self._next(reference)) is not None:
                if not all(stream.reaches(stamp) for stream in self._streams.values()):
                    return None
                self._last = stamp
                if (obs := self._at(stamp)) is not None:
                    return obs, stamp
                self.dropped += 1
            return None

    def _next(self, reference: Stream) -> float | None:
        """Stamp of the reference's first sample that is a tick after the last observation."""
        earliest = self._last + self._tick - reference.interval() / 2
        return next((s for s in reference.stamps if s > self._last and s >= earliest), None)

    def _at(self, stamp: float) -> Obs | None:
        obs: Obs = {}
        for key, spec in self._spec.obs.items():
            if self._spec.is_fast(key):
                value = self._fast(key, stamp)
            else:
                within = self._tick / 2 if spec.modality == "image" else self._limits.pose_age
                stream = self._streams[key]
                index = int(stream.nearest(np.array([stamp]), within)[0])
                value = None if index < 0 else stream.values[index]
            if value is None:
                return None
            obs[key] = value
        return obs

    def _fast(self, key: str, stamp: float) -> NDArray[Any] | None:
        """The tick's r samples (r, D) up to `stamp`, or None where too many are lost."""
        count, dt = self._spec.samples_per_tick(key), 1 / self._spec.obs[key].rate_hz
        stream = self._streams[key]
        slots = np.asarray(stamp - dt * np.arange(count)[::-1], np.float64)
        index = stream.nearest(slots, dt / 2)
        lost = int((index < 0).sum())
        if lost > self._limits.max_filled:
            return None
        self.filled += lost
        for slot in np.flatnonzero(index < 0):
            # The last value before; at the very start there is none, and the first one serves.
            earlier = np.searchsorted(np.array(stream.stamps), slots[slot]) - 1
            index[slot] = max(0, earlier)
        return np.stack([stream.values[i] for i in index])
