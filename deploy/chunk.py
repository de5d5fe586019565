"""A plan with a time axis: the action for any stamp, and the plan seen from a later one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# In units of dt: stamps are sums of floats, and 3 * 0.1 must be the fourth action, not the third.
ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class ActionChunk:
    """Actions (Tp, A); action i holds during [t0 + i dt, t0 + (i + 1) dt) [s].

    t0        t0+dt     t0+2dt   t0+3dt     t0+Tp dt
    |  a[0]   |  a[1]   |  ...   |  a[Tp-1] |
    """

    actions: NDArray[np.float64]
    t0: float
    dt: float

    def __post_init__(self) -> None:
        actions = np.array(self.actions, np.float64)  # (Tp, A), a copy: chunks cross threads
        if actions.ndim != 2 or not len(actions):
            raise ValueError(f"a chunk needs actions of shape (Tp, A), got {actions.shape}.")
        if not self.dt > 0:
            raise ValueError(f"a chunk needs dt > 0 s, got {self.dt}.")
        actions.flags.writeable = False
        object.__setattr__(self, "actions", actions)

    @property
    def end(self) -> float:
        """Stamp at which the last action has been executed [s]."""
        return self.t0 + len(self.actions) * self.dt

    def at(self, stamp: float) -> NDArray[np.float64]:
        """The action (A,) whose interval holds `stamp`; the first before, the last after."""
        index = math.floor((stamp - self.t0) / self.dt + ROUNDING)
        action: NDArray[np.float64] = self.actions[min(max(index, 0), len(self.actions) - 1)]
        return action

    def is_used_up(self, stamp: float, count: int) -> bool:
        """True from the tick at which `count` actions are over; stamps may jitter by half one."""
        return (stamp - self.t0) / self.dt > count - 0.5

    def remaining(self, stamp: float) -> float:
        """Seconds of the chunk still to be executed at `stamp`, never negative."""
        left = self.end - stamp
        return left if left > ROUNDING * self.dt else 0.0

    def shifted_to(self, stamp: float) -> ActionChunk:
        """The same plan starting at `stamp`: linear between actions, the last one repeated."""
        return ActionChunk(self.actions_from(stamp), stamp, self.dt)

    def actions_from(self, stamp: float) -> NDArray[np.float64]:
        """The actions (Tp, A) of `shifted_to(stamp)`."""
        offset = (stamp - self.t0) / self.dt
        whole = math.floor(offset + ROUNDING)
        part = max(0.0, offset - whole)
        index = np.arange(whole, whole + len(self.actions))  # (Tp,)
        actions = self.actions.take(index, axis=0, mode="clip")
        if part > ROUNDING:
            following = self.actions.take(index + 1, axis=0, mode="clip")
            actions = (1 - part) * actions + part * following
        return actions
