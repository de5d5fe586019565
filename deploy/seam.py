"""Where a new chunk takes over: pose blended over a few ticks, discrete dimensions held steady."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.spec import ActionSpec
from deploy.chunk import ROUNDING, ActionChunk

Array = NDArray[np.float64]

SHORTEST = 1e-6  # a column below this length points nowhere
ROT6D = ("r00", "r10", "r20", "r01", "r11", "r21")


@dataclass(frozen=True)
class SeamSettings:
    """Ticks of blending; hysteresis as a part of a discrete dimension's half range; dwell [ticks].

    0 switches a part off.
    """

    blend_ticks: int = 0
    hysteresis: float = 0.0
    dwell_ticks: int = 0

    def __post_init__(self) -> None:
        if min(self.blend_ticks, self.dwell_ticks) < 0 or not 0 <= self.hysteresis < 1:
            raise ValueError(
                "a seam needs blend_ticks and dwell_ticks of 0 or more and a hysteresis in [0, 1), "
                f"got {self.blend_ticks}, {self.dwell_ticks} and {self.hysteresis}."
            )


@dataclass(frozen=True, eq=False)
class _Switches:
    """Discrete dimensions (D,): last value executed, and since which stamp they are on its side."""

    value: Array
    since: Array


class Seam:
    """Makes the chunk that comes into force out of a new one and the one before it.

        old chunk  a a a a a a          action i of the new chunk is for the same time as what
        new chunk      b b b b b b      it is blended with, and w rises like a minimum-jerk
        in force   a a x x b b b b      motion: x = (1 - w) a + w b, rotations re-orthonormalised

    A discrete dimension is on one side of its middle or on the other. It changes sides only where
    the chunk passes the middle by `hysteresis`, and not within `dwell_ticks` of its last change;
    until then it keeps its value. All of a chunk is decided when it enters, and so the command loop
    only looks actions up. Limits and stops come after it and do not wait for it.
    """

    def __init__(self, action: ActionSpec, settings: SeamSettings | None = None) -> None:
        self.settings = settings or SeamSettings()
        self._discrete = list(action.discrete)
        self._rotation = _rotation(action.names)
        taken = {*self._discrete, *self._rotation}
        self._linear = [i for i in range(action.dim) if i not in taken]
        low, high = np.array(action.low, np.float64), np.array(action.high, np.float64)
        self._middle = ((low + high) / 2)[self._discrete]
        self._band = self.settings.hysteresis * ((high - low) / 2)[self._discrete]
        weights = np.arange(1, self.settings.blend_ticks + 1) / (self.settings.blend_ticks + 1)
        self._weights = 10 * weights**3 - 15 * weights**4 + 6 * weights**5  # (B,)
        self._steadies = bool(self._discrete) and (
            self.settings.hysteresis > 0 or self.settings.dwell_ticks > 0
        )
        self.reset()

    def reset(self) -> None:
        """Forget the chunk in force and the sides of the discrete dimensions."""
        self._new: ActionChunk | None = None
        self._joined: ActionChunk | None = None
        self._entered = 0  # index of the first action of the chunk in force that is executed
        self._before: _Switches | None = None  # when that chunk entered
        self._states: list[_Switches] = []  # after each of its actions from there on

    def enter(self, chunk: ActionChunk, stamp: float) -> ActionChunk:
        """The chunk in force from `stamp` on, when `chunk` is the newest one; the same for same."""
        if chunk is self._new and self._joined is not None:
            return self._joined
        first = max(0, math.floor((stamp - chunk.t0) / chunk.dt + ROUNDING))
        joined, before = chunk, self._joined
        if len(self._weights) and before is not None and first < len(chunk.actions):
            joined = self._blended(chunk, before, first)
        if self._steadies:
            switches = self._executed_before(stamp)
            joined = self._steadied(joined, first, switches)
        self._new, self._joined, self._entered = chunk, joined, first
        return joined

    def _blended(self, chunk: ActionChunk, before: ActionChunk, first: int) -> ActionChunk:
        last = min(first + len(self._weights), len(chunk.actions))
        stamps = [chunk.t0 + index * chunk.dt for index in range(first, last)]
        # What has run out says nothing about later.
        old = np.array([before.at(stamp) for stamp in stamps if before.remaining(stamp) > 0])
        if not len(old):
            return chunk
        actions, rows = chunk.actions.copy(), slice(first, first + len(old))
        weights = self._weights[: len(old)]
        new, w = actions[rows], weights[:, None]
        mixed = new.copy()
        mixed[:, self._linear] = ((1 - w) * old + w * new)[:, self._linear]
        if self._rotation:
            for row, (start, w_row) in enumerate(zip(old, weights.tolist(), strict=True)):
                turn = _between(
                    start[self._rotation].tolist(), new[row, self._rotation].tolist(), w_row
                )
                if turn is None:
                    return chunk  # there is no rotation between them: safety's to judge
                mixed[row, self._rotation] = turn
        actions[rows] = mixed
        return ActionChunk(actions, chunk.t0, chunk.dt)

    def _executed_before(self, stamp: float) -> _Switches | None:
        """The switches after the last action that was begun before `stamp`."""
        joined = self._joined
        if joined is None:
            return None
        begun = math.ceil((stamp - joined.t0) / joined.dt - ROUNDING) - self._entered
        return self._states[min(begun, len(self._states)) - 1] if begun > 0 else self._before

    def _steadied(self, chunk: ActionChunk, first: int, before: _Switches | None) -> ActionChunk:
        actions, states, now = chunk.actions.copy(), list[_Switches](), before
        for index in range(first, len(actions)):
            wanted, stamp = actions[index, self._discrete], chunk.t0 + index * chunk.dt
            now = self._switched(now, wanted, stamp, chunk.dt)
            actions[index, self._discrete] = now.value
            states.append(now)
        self._before, self._states = before, states or ([before] if before else [])
        return ActionChunk(actions, chunk.t0, chunk.dt)

    def _switched(self, now: _Switches | None, wanted: Array, stamp: float, dt: float) -> _Switches:
        if now is None:
            return _Switches(wanted, np.full(len(wanted), -np.inf))
        is_above = now.value > self._middle
        offset = np.where(is_above, 1, -1) * (wanted - self._middle)  # > 0: on the same side
        stays = offset > 0
        has_dwelt = stamp - now.since >= (self.settings.dwell_ticks - ROUNDING) * dt
        changes = ~stays & (-offset >= self._band) & has_dwelt
        value = np.where(stays | changes, wanted, now.value)
        return _Switches(value, np.where(changes, stamp, now.since))


def _between(start: list[float], end: list[float], w: float) -> list[float] | None:
    """The rot6d (1 - w) start + w end, made a rotation again by Gram-Schmidt.

    For increments of a tick this is slerp to second order. Plain numbers: numpy takes a hundred
    microseconds for what are fifty multiplications. None where the columns span no plane.
    """
    ax, ay, az, bx, by, bz = ((1 - w) * p + w * q for p, q in zip(start, end, strict=True))
    length = math.sqrt(ax * ax + ay * ay + az * az)
    if not length > SHORTEST:  # also catches NaN
        return None
    ax, ay, az = ax / length, ay / length, az / length
    along = ax * bx + ay * by + az * bz
    bx, by, bz = bx - along * ax, by - along * ay, bz - along * az
    length = math.sqrt(bx * bx + by * by + bz * bz)
    if not length > SHORTEST:
        return None
    return [ax, ay, az, bx / length, by / length, bz / length]


def _rotation(names: tuple[str, ...]) -> list[int]:
    """Indices of the rot6d columns; empty where actions do not turn."""
    return [names.index(name) for name in ROT6D] if set(ROT6D) <= set(names) else []
