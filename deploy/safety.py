"""The last check before the robot: limits on what is commanded, and reasons to stand still."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.rotation import apply_increment, pose9_to_matrix
from data.spec import DataSpec, Obs
from deploy.robot_io import STAND_STILL
from deploy.turn import Turn

Array = NDArray[np.float64]

TOLERANCE = 1e-6  # relative; an action on its bound is not a violation after rounding
HALVINGS = 16


@dataclass(frozen=True)
class SafetyLimits:
    """Speeds [m/s, rad/s], wrench norms [N, N m], age of the newest sensor data [s], box [m]."""

    max_speed: float = 0.25
    max_rotation_speed: float = 1.0
    max_force: float = 60.0
    max_torque: float = 6.0
    max_sensor_age: float = 0.3
    workspace_low: tuple[float, float, float] | None = None
    workspace_high: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        positive = ("max_speed", "max_rotation_speed", "max_force", "max_torque", "max_sensor_age")
        for name in positive:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}.")
        low, high = self.workspace_low, self.workspace_high
        if (low is None) != (high is None):
            raise ValueError("workspace_low and workspace_high go together; give both or none.")
        if low is not None and high is not None and not np.all(np.less(low, high)):
            raise ValueError(f"workspace_low {low} must lie below workspace_high {high}.")


class SafetyLayer:
    """Pure logic: stamps come in, nothing sleeps. Disabled until `enable(True)`.

        sense(obs, stamp)   from the planner: wrench over the limit latches; age is watched
        sense_wrench(w)     from the driver, where single samples come: the same limit at once
        check(action, ...)  from the command loop: a limited increment, or None for "hold"

    A latch survives `enable`; only `reset` lifts it. `clamps` and `holds` count by reason.
    """

    def __init__(self, spec: DataSpec, limits: SafetyLimits | None = None) -> None:
        self.limits = limits or SafetyLimits()
        self._rate_hz = spec.rate_hz
        self._low, self._high = np.array(spec.action.low), np.array(spec.action.high)
        if spec.action.dim != len(STAND_STILL):
            raise ValueError(
                f"actions must be tool increments of {len(STAND_STILL)} numbers "
                f"(translation, rot6d), got {spec.action.names}."
            )
        slack = TOLERANCE * np.maximum(1.0, np.abs(self._high - self._low))
        low, high = (self._low - slack)[3:].tolist(), (self._high + slack)[3:].tolist()
        self._turns = list(zip(low, high, strict=True))  # bounds of rot6d
        if not _within(STAND_STILL, self._low, self._high):
            raise ValueError(f"action bounds must allow standing still, {STAND_STILL.tolist()}.")
        self._wrench_keys = [k for k, s in spec.obs.items() if s.modality == "wrench"]
        self._pose_key = "pose" if "pose" in spec.obs else None
        if self.limits.workspace_low is not None and self._pose_key is None:
            raise ValueError(
                f"a workspace box needs observation 'pose'; the robot has {sorted(spec.obs)}."
            )
        self.reset()

    def reset(self) -> None:
        """Lift the latch, forget what was sensed, zero the counts; stays disabled until enabled."""
        self.clamps: Counter[str] = Counter()
        self.holds: Counter[str] = Counter()
        self.latched: str | None = None
        self.enabled = False
        self._sensed_at: float | None = None
        self._T_world_measured: Array | None = None
        self._T_world_commanded: Array | None = None

    def enable(self, on: bool) -> None:
        """Allow motion or forbid it; raises ValueError while latched."""
        if on and self.latched is not None:
            raise ValueError(f"latched by {self.latched}; find the cause, then call reset().")
        self._T_world_commanded = None  # the tool may have been moved by hand meanwhile
        self.enabled = on

    @property
    def moving(self) -> bool:
        """True while motion is allowed at all."""
        return self.enabled and self.latched is None

    def sense(self, obs: Obs, stamp: float) -> None:
        """Take in a raw observation: the wrench limit, the measured pose and the sensors' age."""
        for key in self._wrench_keys:
            self.sense_wrench(obs[key])
        if self._pose_key is not None:
            self._T_world_measured = pose9_to_matrix(obs[self._pose_key].astype(np.float64))
        self._sensed_at = stamp

    def sense_wrench(self, samples: NDArray[np.floating]) -> None:
        """Latch where one of the samples (..., 6) is over the limit [N, N m]; from any thread."""
        wrench = samples.reshape(-1, 6)
        force = np.linalg.norm(wrench[:, :3], axis=1).max()
        torque = np.linalg.norm(wrench[:, 3:], axis=1).max()
        # Written so that NaN latches too.
        if not force <= self.limits.max_force:
            self.latched = self.latched or f"force {force:.1f} N"
        if not torque <= self.limits.max_torque:
            self.latched = self.latched or f"torque {torque:.2f} N m"

    def check(
        self, action: Array, *, duration: float, now: float, valid_until: float
    ) -> Array | None:
        """The increment (A,) to command over `duration` [s], or None to hold.

        `action` is an increment per policy tick; `valid_until` [s] is the end of its chunk.
        """
        action = np.asarray(action, np.float64)
        reason = self._reason_to_hold(action, duration, now, valid_until)
        if reason is not None:
            self.holds[reason] += 1
            return None
        fraction = min(1.0, duration * self._rate_hz)
        turn = Turn(action[3:].tolist())
        limited = np.empty_like(action)
        limited[:3] = self._limited_translation(fraction * action[:3], fraction)
        limited[3:] = turn.times(fraction * self._allowed_turn(turn))
        if self._T_world_commanded is not None:
            self._T_world_commanded = apply_increment(self._T_world_commanded, limited)
        return limited

    def _reason_to_hold(
        self, action: Array, duration: float, now: float, valid_until: float
    ) -> str | None:
        if not self.enabled:
            return "disabled"
        if self.latched is not None:
            return "latched"
        if self._sensed_at is None or not now - self._sensed_at <= self.limits.max_sensor_age:
            return "stale sensor"
        if not now < valid_until:
            return "stale chunk"
        if action.shape != STAND_STILL.shape or not np.isfinite(action).all():
            return "action not finite"
        if not duration > 0 or not _is_rotation(action):  # Gram-Schmidt would have no answer
            return "action not a motion"
        return None

    def _allowed_turn(self, turn: Turn) -> float:
        """How much of the turn, about the same axis, is neither too fast nor out of bounds."""
        limit = self.limits.max_rotation_speed / self._rate_hz
        keep = 1.0
        if turn.angle > limit * (1 + TOLERANCE):
            self.clamps["rotation speed"] += 1
            keep = limit / turn.angle
        if not self._rotation_in_bounds(turn.times(keep)):
            self.clamps["rotation bounds"] += 1
            inside, outside = 0.0, keep
            for _ in range(HALVINGS):
                middle = (inside + outside) / 2
                if self._rotation_in_bounds(turn.times(middle)):
                    inside = middle
                else:
                    outside = middle
            keep = inside
        return keep

    def _rotation_in_bounds(self, rot6d: list[float]) -> bool:
        return all(
            low <= value <= high for value, (low, high) in zip(rot6d, self._turns, strict=True)
        )

    def _limited_translation(self, move: Array, fraction: float) -> Array:
        """`move` (3,) pulled into the workspace, then shortened to `fraction` of a tick's limits.

        Shortening keeps the direction: from inside the convex workspace it cannot leave it again.
        """
        move = self._into_workspace(move)
        room = np.where(move > 0, self._high[:3], self._low[:3]) * fraction
        moves = move != 0
        with np.errstate(over="ignore"):  # a denormal move has infinite room
            keep = min(1.0, float(np.min(room[moves] / move[moves], initial=np.inf)))
        if keep < 1 - TOLERANCE:
            self.clamps["translation bounds"] += 1
        length = float(np.linalg.norm(move)) * keep
        allowed = self.limits.max_speed / self._rate_hz * fraction
        if length > allowed * (1 + TOLERANCE):
            self.clamps["speed"] += 1
            keep *= allowed / length
        return move * keep

    def _into_workspace(self, move: Array) -> Array:
        """`move` (3,) in the tool frame [m], cut where the commanded tool would leave the box."""
        low, high = self.limits.workspace_low, self.limits.workspace_high
        if low is None or high is None:
            return move
        if self._T_world_commanded is None:
            self._T_world_commanded = self._T_world_measured
        T_world_tool = self._T_world_commanded
        if T_world_tool is None:
            raise ValueError("a workspace box needs a measured pose; call sense() before check().")
        R_world_tool = T_world_tool[:3, :3]
        target = T_world_tool[:3, 3] + R_world_tool @ move
        inside = np.clip(target, low, high)
        if np.allclose(inside, target, rtol=0, atol=1e-9):
            return move
        self.clamps["workspace"] += 1
        return np.asarray(R_world_tool.T @ (inside - T_world_tool[:3, 3]))


def _within(value: Array, low: Array, high: Array) -> bool:
    slack = TOLERANCE * np.maximum(1.0, np.abs(high - low))
    return bool(np.all(value >= low - slack) and np.all(value <= high + slack))


def _is_rotation(action: Array) -> bool:
    """True where the two columns span a plane, so that Gram-Schmidt has an answer."""
    ax, ay, az, bx, by, bz = action[3:].tolist()
    across = math.hypot(ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx)
    size = math.hypot(ax, ay, az) * math.hypot(bx, by, bz)
    return size > 1e-6 and across > 1e-3 * size
