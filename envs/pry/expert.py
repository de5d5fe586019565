"""The scripted expert: guarded moves on the felt force, in phases.

    approach -> descend until the floor is felt -> back off -> slide until the face is felt
             -> relieve -> creep upwards, flattening the blade
             -> load was there and fell away: stand still
                    a contact too high up is the top of the lip: retreat and try again

It acts on what a policy could observe (measured pose, filtered wrench) plus a noisy object pose,
never on the glue. In `mistake_rate` of the episodes it first aims at the lip on purpose; those
actions are marked invalid, so that only the recovery is learned. Executed actions carry a little
noise while the label is the clean action (DART, Laskey et al. 2017): it widens the states shown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.rotation import matrix_to_rot6d, pose9_to_matrix
from data.spec import Obs
from envs.base import ExpertAction

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Gains:
    """Speeds in m (or rad) per 0.1 s tick, forces in N."""

    approach_step: float = 0.0018
    turn_step: float = 0.05
    descend_step: float = 0.0004
    slide_step: float = 0.0006
    creep_step: float = 0.0004
    loaded_step: float = 0.00025  # once a load is felt: goes on until the release is noticed
    creep_turn: float = 15.0  # pitch per metre of lift [rad/m]
    floor_force: float = 2.0
    face_force: float = 2.5
    armed_load: float = 1.4
    lip_height: float = 0.0017  # lower than this above the floor, the face's friction is no load
    face_friction: float = 1.0
    released_load: float = 0.6  # the freed cell weighs up to 0.35 N on the blade
    hold_samples: int = 7  # at 100 Hz
    face_load: float = 1.5
    relieve_per_newton: float = 4e-5  # the impedance is 5e-5 m/N
    yield_per_newton: float = 3e-5  # backwards per tick and newton above the face load
    too_high: float = 0.0028  # contact this far above the expected floor is the lip [m]
    face_x: float = -0.0326  # the face lies at -0.030, the lip's edge at -0.035
    probe_ticks: int = 10  # lifting this long without load means the blade is not under the lip
    insert_x: float = -0.041  # where the tip goes down, in the cell's frame [m]
    insert_z: float = 0.0055


class PryExpert:
    """Follows `envs.base.Expert`; `reset` draws whether this episode contains a mistake."""

    def __init__(
        self, mistake_rate: float = 0.13, noise: float = 1e-4, gains: Gains | None = None
    ) -> None:
        self._mistake_rate, self._noise = mistake_rate, noise
        self.gains = gains or Gains()
        self._reset_episode(np.random.default_rng(0))

    def reset(self, seed: int) -> None:
        """Start an episode; everything random in it comes from `seed`."""
        self._reset_episode(np.random.default_rng([seed, 0x9E3779B9]))

    def _reset_episode(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self.phase = "approach"
        self.made_mistake = bool(rng.random() < self._mistake_rate)
        self._bias = float(rng.uniform(0.006, 0.009)) if self.made_mistake else 0.0
        self._wrench = np.zeros((0, 6))
        self._peak_load = 0.0
        self._countdown = 0
        self._floor = 0.0

    def act(self, obs: Obs, info: dict[str, Any]) -> ExpertAction:
        """The next increment; `info["object_pose"]` is the noisy (x, y, z, yaw) of the cell."""
        pose = pose9_to_matrix(obs["pose"].astype(float))
        self._wrench = np.concatenate([self._wrench, obs["wrench"]])[-32:]
        force = self._wrench[:, :3] @ pose[:3, :3].T  # world axes
        valid = self._bias == 0.0
        if self.phase == "approach":
            motion, turn = self._approach(pose, info["object_pose"])
        else:
            motion, turn = getattr(self, f"_{self.phase}")(pose, force, info["object_pose"])
        clean = _increment(pose[:3, :3], motion, turn)
        return ExpertAction(clean, valid or self._bias == 0.0, self._noisy(clean))

    def _noisy(self, clean: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.phase == "stop":
            return clean
        noisy = clean.copy()
        noisy[:3] += self._rng.normal(0.0, self._noise, 3).astype(np.float32)
        return noisy

    # Each phase returns the world motion [m] and the turn (yaw, pitch) [rad] of this tick.

    def _approach(self, pose: Array, cell: Array) -> tuple[Array, Array]:
        gains = self.gains
        height = gains.insert_z + (0.0035 if self._bias else 0.0)
        goal = _in_world(cell, np.array([gains.insert_x + self._bias, 0.0, height]))
        offset = goal - pose[:3, 3]
        distance = float(np.linalg.norm(offset))
        turn = np.array([cell[3] - math.atan2(pose[1, 0], pose[0, 0]), 0.0])
        turn = np.clip(0.6 * turn, -gains.turn_step, gains.turn_step)
        if distance < 0.0008 or (math.hypot(*offset[:2]) < 0.0008 and offset[2] > 0):
            self.phase = "descend"
        step = (
            offset * min(1.0, gains.approach_step / distance) if distance > 0.004 else 0.4 * offset
        )
        return step, turn

    def _descend(self, pose: Array, force: Array, cell: Array) -> tuple[Array, Array]:
        if force[-5:, 2].mean() <= self.gains.floor_force:
            return np.array([0.0, 0.0, -self.gains.descend_step]), np.zeros(2)
        self._bias = 0.0
        if pose[2, 3] - cell[2] > self.gains.too_high:
            self.phase, self._countdown = "retreat", 8
            return self._retreat(pose, force, cell)
        self.phase, self._countdown, self._floor = "back_off", 1, float(pose[2, 3])
        return self._back_off(pose, force, cell)

    def _retreat(self, pose: Array, force: Array, cell: Array) -> tuple[Array, Array]:
        """Backwards and a little up, out from under or off the lip, then a new approach."""
        self._countdown -= 1
        if self._countdown <= 0:
            self.phase = "approach"
        return -0.0009 * _forward(pose) + np.array([0.0, 0.0, 0.0003]), np.zeros(2)

    def _back_off(self, pose: Array, force: Array, cell: Array) -> tuple[Array, Array]:
        self._countdown -= 1
        if self._countdown <= 0:
            self.phase = "slide"
        return np.array([0.0, 0.0, 0.0004]), np.zeros(2)

    def _slide(self, pose: Array, force: Array, cell: Array) -> tuple[Array, Array]:
        if force[-5:].mean(axis=0) @ _forward(pose) > -self.gains.face_force:
            return _forward(pose) * self.gains.slide_step, np.zeros(2)
        if (
            _in_cell(cell, pose[:3, 3])[0] < self.gains.face_x
        ):  # it is the lip's edge, not the cell's face
            self.phase, self._countdown = "retreat", 8
            return self._retreat(pose, force, cell)
        self.phase = "relieve"
        return self._relieve(pose, force, cell)

    def _relieve(self, pose: Array, force: Array, cell: Array) -> tuple[Array, Array]:
        """Take the sliding force off the face: its friction would feel like a load."""
        self.phase, self._countdown = "creep", 0
        pushed = -float(force[-3:].mean(axis=0) @ _forward(pose)) - self.gains.face_load
        return -np.clip(pushed * self.gains.relieve_per_newton, 0.0, 0.0006) * _forward(
            pose
        ), np.zeros(2)

    def _creep(self, pose: Array, force: Array, cell: Array) -> tuple[Array, Array]:
        gains, load = self.gains, -force[:, 2]
        self._countdown -= 1
        felt = load[-10:]
        if pose[2, 3] - self._floor < gains.lip_height:
            felt = felt - gains.face_friction * np.abs(force[-10:] @ _forward(pose))
        self._peak_load = max(self._peak_load, float(felt.max()))
        if self._countdown < -gains.probe_ticks and self._peak_load < gains.armed_load:
            self.phase, self._countdown = "retreat", 8
            return self._retreat(pose, force, cell)
        fallen = max(load[-gains.hold_samples :].mean(), load[-3:].mean()) < gains.released_load
        if self._peak_load > gains.armed_load and fallen:
            self.phase = "stop"
            return np.zeros(3), np.zeros(2)
        step = gains.loaded_step if self._peak_load > gains.armed_load else gains.creep_step
        # The tilting cell comes towards the blade; jammed against the rim it never feels free.
        pushed = -float(force[-5:].mean(axis=0) @ _forward(pose)) - gains.face_load
        back = np.clip(gains.yield_per_newton * pushed, 0.0, gains.creep_step)
        return np.array([0.0, 0.0, step]) - back * _forward(pose), np.array(
            [0.0, -gains.creep_turn * step]
        )

    def _stop(self, pose: Array, force: Array, cell: Array) -> tuple[Array, Array]:
        return np.zeros(3), np.zeros(2)


def _forward(pose: Array) -> Array:
    """Horizontal direction the blade points in."""
    yaw = math.atan2(pose[1, 0], pose[0, 0])
    return np.array([math.cos(yaw), math.sin(yaw), 0.0])


def _in_world(cell: Array, point: Array) -> Array:
    c, s = math.cos(cell[3]), math.sin(cell[3])
    turned = np.array([c * point[0] - s * point[1], s * point[0] + c * point[1], point[2]])
    world: Array = cell[:3] + turned
    return world


def _in_cell(cell: Array, point: Array) -> Array:
    c, s = math.cos(cell[3]), math.sin(cell[3])
    dx, dy = point[0] - cell[0], point[1] - cell[1]
    return np.array([c * dx + s * dy, -s * dx + c * dy])


def _increment(rotation: Array, motion: Array, turn: Array) -> NDArray[np.float32]:
    """Action (9,): `motion` in the world, yaw about the world's z, pitch about the tool's y."""
    cy, sy = math.cos(turn[0]), math.sin(turn[0])
    cp, sp = math.cos(turn[1]), math.sin(turn[1])
    yaw = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1.0]])
    pitch = np.array([[cp, 0, sp], [0, 1.0, 0], [-sp, 0, cp]])
    delta = rotation.T @ yaw @ rotation @ pitch
    return np.concatenate([rotation.T @ motion, matrix_to_rot6d(delta)]).astype(np.float32)
