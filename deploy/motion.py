"""What execution looks like where one chunk takes over from another: jumps, jerk, stalls.

Pure functions of what was executed tick by tick. Actions are tool-frame increments
(dx, dy, dz, rot6d), or increments in fixed axes; further dimensions may be discrete. Lengths
come in any unit of `METERS` and go out in m.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from data.rotation import apply_increment, matrix_to_axis_angle, rot6d_to_matrix
from data.spec import ActionSpec
from deploy.chunk import ActionChunk

Array = NDArray[np.float64]
METERS = {"m": 1.0, "cm": 1e-2, "mm": 1e-3}
ROT6D = ("r00", "r10", "r20", "r01", "r11", "r21")


@dataclass(frozen=True, eq=False)
class Executed:
    """A tick: its stamp [s], the chunk in force, None before the first, and the action (A,)."""

    stamp: float
    chunk: ActionChunk | None
    action: Array


def entries(run: Sequence[Executed]) -> list[int]:
    """Ticks at which a chunk takes over from another one that has not run out.

    Where the older one has run out the robot has stopped: that is a stall and no seam.
    """
    return [
        tick
        for tick in range(1, len(run))
        if (old := run[tick - 1].chunk) is not None
        and run[tick].chunk is not None
        and run[tick].chunk is not old
        and old.remaining(run[tick].stamp) > 0
    ]


def seam_jumps(run: Sequence[Executed], spec: ActionSpec) -> Array:
    """|a_new - a_old| at each entry (n, 2): translation [m] and rotation [rad] of one tick."""
    jumps = [np.zeros((0, 2))]
    for tick in entries(run):
        old, new, stamp = run[tick - 1].chunk, run[tick].chunk, run[tick].stamp
        assert old is not None
        assert new is not None
        jumps.append(_distance(new.at(stamp)[None], old.at(stamp)[None], spec))
    return np.concatenate(jumps)


def plan_overlaps(run: Sequence[Executed], spec: ActionSpec) -> Array:
    """Root mean square over the overlap of successive plans (n, 2): per-tick [m] and [rad].

    Only what the older plan still had to say when the newer one was made.
    """
    chunks = [tick.chunk for tick in run if tick.chunk is not None]
    overlaps = [np.zeros((0, 2))]
    for old, new in pairwise(chunks):
        count = int(old.remaining(new.t0) / new.dt + 1e-6)
        if new is old or count == 0:
            continue
        distance = _distance(new.actions[:count], old.actions_from(new.t0)[:count], spec)
        overlaps.append(np.sqrt(np.square(distance).mean(0, keepdims=True)))
    return np.concatenate(overlaps)


def commanded_positions(actions: Array, spec: ActionSpec) -> Array:
    """Where actions (T, A) command the tool (T + 1, 3) [m], from the origin on."""
    translation = _meters(actions, spec)
    if not (rotation := _rotation(spec)):
        return np.concatenate([np.zeros((1, translation.shape[1])), translation.cumsum(0)])
    pose, positions = np.eye(4), [np.zeros(3)]
    for move, turn in zip(translation, actions[:, rotation], strict=True):
        pose = apply_increment(pose, np.concatenate([move, turn]))
        positions.append(pose[:3, 3])
    return np.stack(positions)


@dataclass(frozen=True)
class Jerk:
    """Third difference of the commanded position over dt^3 [m/s^3], 0 where there is none."""

    rms: float
    p99: float


def jerk(run: Sequence[Executed], spec: ActionSpec, dt: float) -> tuple[Jerk, Jerk]:
    """At the seams and off them.

    action       a[t-2]  a[t-1]  a[t]      at a seam, if a chunk entered with a[t-1] or a[t]
    position   p       p       p     p     third difference of these four
    """
    if len(run) < 3:
        return Jerk(0.0, 0.0), Jerk(0.0, 0.0)
    positions = commanded_positions(np.stack([tick.action for tick in run]), spec)
    size = np.linalg.norm(np.diff(positions, 3, axis=0), axis=1) / dt**3  # (T - 2,)
    at_seam = np.zeros(len(run) + 1, bool)
    for tick in entries(run):
        at_seam[[tick, tick + 1]] = True
    mask = at_seam[2:-1]
    return _summary(size[mask]), _summary(size[~mask])


def toggles(actions: Array, spec: ActionSpec) -> int:
    """How often discrete dimensions of actions (T, A) change sides."""
    return int(np.count_nonzero(np.diff(_sides(actions, spec), axis=0)))


def switch_delays(actions: Array, wanted: Array, spec: ActionSpec) -> list[int | None]:
    """Ticks from each switch in `wanted` (T, A) until `actions` (T, A) are on the same side.

    None where they do not get there before `wanted` switches back or ends; one entry a switch,
    dimension by dimension. `wanted` may be a demonstration, or what the newest plan says.
    """
    delays: list[int | None] = []
    for done, want in zip(_sides(actions, spec).T, _sides(wanted, spec).T, strict=True):
        switches = [*(np.flatnonzero(np.diff(want)) + 1).tolist(), len(want)]
        for start, stop in pairwise(switches):
            there = np.flatnonzero(done[start:stop] == want[start])
            delays.append(int(there[0]) if len(there) else None)
    return delays


def stalls(actions: Array, spec: ActionSpec, tolerance: float = 1e-6) -> int:
    """Ticks of actions (T, A) that command no motion.

    Every continuous dimension is within `tolerance` of `spec.still`, as a part of its half range.
    """
    half = (np.array(spec.high) - np.array(spec.low)) / 2
    moved = np.abs(actions - spec.still) > tolerance * half  # (T, A)
    continuous = [i for i in range(spec.dim) if i not in spec.discrete]
    return int(np.count_nonzero(~moved[:, continuous].any(1)))


def figures(run: Sequence[Executed], spec: ActionSpec, dt: float) -> dict[str, float]:
    """All of an episode as flat names, ready for rows of results; means are 0 where nothing is."""
    if not run:
        raise ValueError("an episode without ticks has no figures.")
    actions = np.stack([tick.action for tick in run])
    jumps, overlaps = seam_jumps(run, spec), plan_overlaps(run, spec)
    at_seam, off_seam = jerk(run, spec, dt)
    return {
        "seams": float(len(jumps)),
        "seam_jump_m": _mean(jumps[:, 0]),
        "seam_jump_rad": _mean(jumps[:, 1]),
        "overlap_m": _mean(overlaps[:, 0]),
        "overlap_rad": _mean(overlaps[:, 1]),
        "jerk_at_seam_rms": at_seam.rms,
        "jerk_at_seam_p99": at_seam.p99,
        "jerk_off_seam_rms": off_seam.rms,
        "jerk_off_seam_p99": off_seam.p99,
        "toggles": float(toggles(actions, spec)),
        "stall_ticks": float(stalls(actions, spec)),
    }


def _meters(actions: Array, spec: ActionSpec) -> Array:
    """The translation in actions (n, A), (n, 3) [m]."""
    units = enumerate(spec.units)
    move = [i for i, unit in units if unit in METERS and i not in spec.discrete]
    meters: Array = actions[:, move] * np.array([METERS[spec.units[i]] for i in move])
    return meters


def _rotation(spec: ActionSpec) -> list[int]:
    """Dimensions of rot6d, none where the action does not turn the tool."""
    return [spec.names.index(name) for name in ROT6D] if set(ROT6D) <= set(spec.names) else []


def _distance(one: Array, other: Array, spec: ActionSpec) -> Array:
    """Translation [m] and rotation [rad] (n, 2) between actions (n, A)."""
    distance = np.zeros((len(one), 2))
    distance[:, 0] = np.linalg.norm(_meters(one, spec) - _meters(other, spec), axis=1)
    if rotation := _rotation(spec):
        turns = [rot6d_to_matrix(actions[:, rotation]) for actions in (one, other)]
        between = np.swapaxes(turns[0], -1, -2) @ turns[1]
        distance[:, 1] = np.linalg.norm(matrix_to_axis_angle(between), axis=1)
    return distance


def _sides(actions: Array, spec: ActionSpec) -> NDArray[np.bool_]:
    """Which side of the middle of its bounds each discrete dimension is on (T, discrete)."""
    discrete = list(spec.discrete)
    sides: NDArray[np.bool_] = actions[:, discrete] > spec.still[discrete]
    return sides


def _summary(size: Array) -> Jerk:
    if not len(size):
        return Jerk(0.0, 0.0)
    return Jerk(float(np.sqrt(np.square(size).mean())), float(np.percentile(size, 99)))


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else 0.0
