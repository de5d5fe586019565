"""How an executed episode moved: at the seams between chunks, and in between."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from data.spec import DataSpec
from deploy.agent import Executed
from deploy.chunk import ActionChunk

STALL = 1e-6  # of an action's range: less is no motion

Array = NDArray[np.float64]


def motion_metrics(executed: Sequence[Executed], spec: DataSpec) -> dict[str, float]:
    """Figures of one episode; those that it does not have (no seam, no discrete action) are out.

    Continuous actions count in units of their bounds: 1 is the largest action. `jerk` is the RMS of
    the second difference of the actions, the third one of what they move, a tick cubed.
    """
    if not executed:
        return {}
    actions = np.stack([tick.action for tick in executed])  # (T, A)
    continuous = _scaled(actions, spec)
    seams = [i for i, (a, b) in enumerate(pairwise(executed), 1) if _is_seam(a.chunk, b.chunk)]
    found = {"stall_share": float((np.abs(continuous).max(axis=1) < STALL).mean())}
    found |= _seam_figures(executed, seams, spec)
    found |= _jerk(continuous, seams)
    if spec.action.discrete:
        signs = np.sign(actions[:, list(spec.action.discrete)])
        found["toggles"] = float((np.diff(signs, axis=0) != 0).sum())
    return found


def _is_seam(old: ActionChunk | None, new: ActionChunk | None) -> bool:
    return old is not None and new is not None and old is not new


def _scaled(actions: Array, spec: DataSpec) -> Array:
    """Continuous dimensions (..., C), as parts of the largest action."""
    low, high = np.array(spec.action.low), np.array(spec.action.high)
    scaled = (actions - spec.action.still) / ((high - low) / 2)
    kept = [i for i in range(spec.action.dim) if i not in spec.action.discrete]
    continuous: Array = scaled[..., kept]
    return continuous


def _seam_figures(
    executed: Sequence[Executed], seams: Sequence[int], spec: DataSpec
) -> dict[str, float]:
    """Distance of the old and the new plan: at the first action executed, and all along."""
    jumps, overlaps = [], []
    for i in seams:
        stamp, old, new = executed[i].stamp, executed[i - 1].chunk, executed[i].chunk
        assert old is not None
        assert new is not None
        left = round(min(old.remaining(stamp), new.remaining(stamp)) / new.dt)
        if left < 1:
            continue
        change = _scaled(new.actions_from(stamp), spec) - _scaled(old.actions_from(stamp), spec)
        distance = np.linalg.norm(change[:left], axis=1)
        jumps.append(distance[0])
        overlaps.append(distance.mean())
    if not jumps:
        return {}
    return {"seam_jump": float(np.mean(jumps)), "plan_change": float(np.mean(overlaps))}


def _jerk(actions: Array, seams: Sequence[int]) -> dict[str, float]:
    """At a seam: wherever the difference reaches over it."""
    if len(actions) < 3:
        return {}
    square = np.square(np.diff(actions, n=2, axis=0)).sum(axis=1)  # of ticks i, i + 1, i + 2
    at = np.zeros(len(square), bool)
    for i in seams:
        at[max(i - 2, 0) : i] = True
    found = {"jerk": square, "jerk_at_seam": square[at], "jerk_off_seam": square[~at]}
    return {name: float(np.sqrt(s.mean())) for name, s in found.items() if s.size}
