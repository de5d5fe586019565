"""Decides how a prying episode ends. Outcomes exclude each other; the first that applies counts.

The first 0.5 s standstill of the commanded pose after lifting has begun is the policy's word "it is
released" and ends the episode: otherwise moving and waiting in a staircase would win blindly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.pry.simulation import PrySimulation

OUTCOMES = (
    "success",
    "over_force",
    "lip_damage",
    "slip",
    "mis_insert",
    "over_travel",
    "premature_stop",
    "eject",
    "unstable",
    "timeout",
)


@dataclass(frozen=True)
class Limits:
    """Where an episode fails. Lengths in m, forces in N."""

    tolerance: float = 1.5e-3  # upward travel of the blade, tip or under the lip, after release
    force: float = 40.0  # 20 ms mean
    lip_force: float = 35.0  # normal force of the blade on the lip
    slip_s: float = 0.2
    eject: float = 0.03  # travel of the cell in the plane
    max_ticks: int = 180


class Judge:
    """Follows one episode tick by tick."""

    STANDSTILL_TICKS = 5
    # Commanded motion per tick that still counts as standing [m, m, rad].
    STILL_Z, STILL_XY, STILL_TURN = 1.0e-4, 3.0e-4, 0.01
    LIFT = 0.0012
    UNDER_LIP_X = -0.0375  # tip in the tray's frame

    def __init__(self, sim: PrySimulation, limits: Limits) -> None:
        self._sim, self._limits = sim, limits
        self._lowest = math.inf
        self._lifting = False
        self._still = 0
        self.ticks = 0

    def tick(self, before: NDArray[np.float64], after: NDArray[np.float64]) -> str | None:
        """Outcome of a tick that moved the commanded pose (4, 4) so; None: the episode goes on."""
        self.ticks += 1
        tip = self._sim.tip
        self._lowest = min(self._lowest, float(tip[2]))
        if tip[2] - self._lowest > self.LIFT and self._in_tray(tip)[0] > self.UNDER_LIP_X:
            self._lifting = True
        motion = after[:3, 3] - before[:3, 3]
        # Turning counts too: about its tip the blade levers the lip up without moving the tip.
        still = (
            abs(motion[2]) < self.STILL_Z
            and math.hypot(*motion[:2]) < self.STILL_XY
            and _angle(before[:3, :3].T @ after[:3, :3]) < self.STILL_TURN
        )
        self._still = self._still + 1 if self._lifting and still else 0
        return self._failure() or self._ending()

    def metrics(self) -> dict[str, float]:
        """Soft figures of the episode."""
        truth = self._sim.truth
        return {
            "peak_force_n": truth.peak_force,
            "peak_lip_force_n": truth.peak_lip_force,
            "overtravel_mm": 1e3 * truth.travel_after_release,
            "released": float(truth.released),
            "patches_left": float(truth.glue.sum()),
            "duration_s": self.ticks / 10.0,
        }

    def _in_tray(self, point: NDArray[np.float64]) -> NDArray[np.float64]:
        p = self._sim.parameters
        c, s = math.cos(p.yaw), math.sin(p.yaw)
        dx, dy = point[0] - p.xy[0], point[1] - p.xy[1]
        return np.array([c * dx + s * dy, -s * dx + c * dy])

    def _failure(self) -> str | None:
        truth, limits = self._sim.truth, self._limits
        cell = self._sim.cell_pose()
        moved = math.hypot(
            cell[0] - self._sim.parameters.xy[0], cell[1] - self._sim.parameters.xy[1]
        )
        checks = (
            ("unstable", truth.unstable),
            ("over_force", truth.peak_force > limits.force),
            ("lip_damage", truth.peak_lip_force > limits.lip_force),
            ("eject", moved > limits.eject),
            ("over_travel", truth.released and truth.travel_after_release > limits.tolerance),
            ("slip", truth.longest_loss_s > limits.slip_s),
        )
        return next((name for name, failed in checks if failed), None)

    def _ending(self) -> str | None:
        truth = self._sim.truth
        touched = truth.was_loaded
        if self._still >= self.STANDSTILL_TICKS:
            if truth.released:
                return "success"
            return "premature_stop" if touched else "mis_insert"
        if self.ticks >= self._limits.max_ticks:
            return "timeout" if touched else "mis_insert"
        return None


def _angle(rotation: NDArray[np.float64]) -> float:
    """Angle of a rotation matrix [rad]; exact where it is small."""
    r = rotation
    sine = np.linalg.norm([r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]]) / 2
    return math.atan2(float(sine), (float(np.trace(r)) - 1) / 2)
