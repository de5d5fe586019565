"""Physics of prying at 1 kHz: impedance target, breaking glue, contacts, wrench, measured pose.

The gymnasium environment and the simulated ROS 2 robot drive the same object: `set_target` and
`advance` are all a robot's driver would offer. What only the judge may know (glue, true contact) is
under `truth`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.pry.parameters import PryParameters
from envs.pry.scene import (
    FLANGE_IN_TOOL,
    NUM_GLUE,
    RIDGE_HALF_Z,
    TENDON_REST,
    build_mjcf,
)
from envs.wrench import DistalLoad, WrenchNoise, WrenchSensor

Array = NDArray[np.float64]
POSE_NOISE = (1e-4, 1e-3)  # [m], [rad] standard deviation of the measured pose
START_TIP, START_PITCH = (-0.072, 0.0, 0.026), 0.30
BLOCK_MS = 5  # between two looks at the glue, and two steps of the interpolated target
TIP_Z = 15  # sensor row: force 3, torque 3, flange axes 9, tip z, glue lengths
CONTACT_MS = 10  # contact forces are looked at every 10 ms
LIFTED_TILT = 0.004  # [rad], a quarter of a millimetre at the lip
LIP_LENGTH = 0.005
LOAD_MASS = 0.1
# After any of these MuJoCo starts again from the initial state, as if nothing had happened.
DIVERGED = (
    mujoco.mjtWarning.mjWARN_BADQPOS,
    mujoco.mjtWarning.mjWARN_BADQVEL,
    mujoco.mjtWarning.mjWARN_BADQACC,
)
# Shank (80 g) and blade (20 g) about the flange, in the tool's axes.
LOAD_COM = (0.02 * 0.025 / 0.1, 0.0, (-0.02 * 0.08 - 0.04 * 0.02) / 0.1)


@dataclass
class Truth:
    """What happened, known to the judge only. Lengths in m, forces in N."""

    glue: NDArray[np.bool_] = field(default_factory=lambda: np.ones(NUM_GLUE, bool))
    released: bool = False
    release_z: float = 0.0  # of the tip
    release_lip_z: float = 0.0  # of the blade where the lip's outer edge lies on it
    travel_after_release: float = 0.0
    peak_force: float = 0.0  # highest 20 ms mean
    peak_lip_force: float = 0.0
    lost_s: float = 0.0  # at a stretch, until now
    longest_loss_s: float = 0.0
    was_loaded: bool = False
    unstable: bool = False


class PrySimulation:
    """One episode's physics. Poses are 4x4 matrices; the tool frame sits at the blade's tip."""

    def __init__(self, parameters: PryParameters, rng: np.random.Generator) -> None:
        self.parameters, self._rng = parameters, rng
        self.model = mujoco.MjModel.from_xml_string(build_mjcf(parameters))
        self.data = mujoco.MjData(self.model)
        self._bind()
        dx, dy, dz, dyaw = parameters.tool_start
        start = np.array(
            [START_TIP[0] + dx, START_TIP[1] + dy, START_TIP[2] + dz, dyaw, START_PITCH, 0.0]
        )
        self._tool_qpos[:] = start
        self.data.ctrl[:] = start
        mujoco.mj_forward(self.model, self.data)
        self._from, self._to = start.copy(), start.copy()
        self._target_ms, self._target_total = 0, 1
        tip = (-FLANGE_IN_TOOL[0], -FLANGE_IN_TOOL[1], -FLANGE_IN_TOOL[2])
        noise = WrenchNoise(scale=parameters.sensor_scale)
        self._sensor = WrenchSensor(
            DistalLoad(LOAD_MASS, LOAD_COM), tip, rng, parameters.wrench_bias, noise
        )
        self._wrench: list[Array] = []
        self._recent_force = np.zeros(20)
        self.elapsed_ms = 0
        self.truth = Truth()
        self._settle()

    def _bind(self) -> None:
        """Look up addresses and views once: the 1 kHz loop only touches arrays."""
        model, data = self.model, self.data
        first = model.joint("x").qposadr[0]
        self._tool_qpos = data.qpos[first : first + 6]
        cell = model.joint("cell").qposadr[0]
        self._cell_qpos = data.qpos[cell : cell + 7]
        self._blade, self._lip = model.geom("blade").id, model.geom("lip").id
        self._is_cell = model.geom_bodyid == model.body("cell").id
        self._clamped = self.parameters.holder == "clamp"
        self._break_length = TENDON_REST + self.parameters.break_stretch
        self._contact_force = np.zeros(6)

    def _settle(self) -> None:
        """0.4 s standing still: the filter settles, the last 0.2 s are the tare."""
        self.advance(400)
        samples = self.pull_wrench()
        self._sensor.tare(samples[-20:])
        self._wrench = [samples[-10:] - samples[-20:].mean(axis=0)]
        self.elapsed_ms = 0
        self.truth = Truth()

    # ------------------------------------------------------------------ the robot's side

    @property
    def target(self) -> Array:
        """Commanded tool pose that the impedance controller is on its way to, (4, 4)."""
        return _pose_from_joints(self._to)

    def set_target(self, T_world_tool: Array, duration_s: float) -> None:
        """Move the commanded pose to `T_world_tool` in a straight line within `duration_s`."""
        self._from = self._current_target()
        self._to = _joints_from_pose(T_world_tool)
        self._target_ms, self._target_total = 0, max(1, round(duration_s * 1000))

    def _current_target(self) -> Array:
        part = min(1.0, self._target_ms / self._target_total)
        current: Array = self._from + part * (self._to - self._from)
        return current

    def advance(self, milliseconds: int) -> None:
        """Step the physics by a multiple of 5 ms; wrench samples collect until `pull_wrench`."""
        if milliseconds % BLOCK_MS:
            raise ValueError(f"advance takes a multiple of {BLOCK_MS} ms, got {milliseconds}.")
        log = np.empty((milliseconds, self.data.sensordata.size))
        model, data, sensors, step = self.model, self.data, self.data.sensordata, mujoco.mj_step
        for start in range(0, milliseconds, BLOCK_MS):
            self._target_ms += BLOCK_MS
            data.ctrl[:] = self._current_target()
            for k in range(start, start + BLOCK_MS):
                step(model, data)
                log[k] = sensors
            self._watch_release(log[start : start + BLOCK_MS])
            self.elapsed_ms += BLOCK_MS
            if self.elapsed_ms % CONTACT_MS == 0:
                self._watch_contact()
        axes = log[:, 6:15].reshape(-1, 3, 3).transpose(0, 2, 1)  # columns are the flange's axes
        external = self._sensor.external(log[:, :6], axes)
        self._wrench.append(self._sensor.process(external))
        self._watch_force(external)

    def pull_wrench(self) -> Array:
        """All 100 Hz samples since the last call, (n, 6), in the tool frame at the tip [N, N m]."""
        samples = np.concatenate(self._wrench) if self._wrench else np.zeros((0, 6))
        self._wrench = []
        return samples

    def measured_pose(self) -> Array:
        """Measured tool pose with this episode's calibration error and noise, (4, 4)."""
        joints = self._tool_qpos.copy()
        joints[:3] += np.asarray(self.parameters.calibration) + self._rng.normal(
            0, POSE_NOISE[0], 3
        )
        joints[3:] += self._rng.normal(0, POSE_NOISE[1], 3)
        return _pose_from_joints(joints)

    def calibrated_target(self) -> Array:
        """The commanded pose in the frame of the measured one (same calibration error), (4, 4)."""
        pose = self.target
        pose[:3, 3] += self.parameters.calibration
        return pose

    # ------------------------------------------------------------------ the judge's side

    @property
    def tip(self) -> Array:
        """True position of the tip [m]."""
        tip: Array = self._tool_qpos[:3].copy()
        return tip

    def cell_pose(self) -> Array:
        """True x, y, z, yaw of the cell; z is 0 at the nominal tray floor."""
        x, y, z, qw, qx, qy, qz = self._cell_qpos
        yaw = math.atan2(2 * (qw * qz + qx * qy), 1 - 2 * (qy * qy + qz * qz))
        return np.array([x, y, z - 0.004, yaw])

    def noisy_object_pose(self) -> Array:
        """Cell pose as a detector would give it: this episode's offset plus noise."""
        noise = self._rng.normal(0, 1, 4) * [2e-4, 2e-4, 2e-4, 3e-3]
        pose: Array = self.cell_pose() + np.asarray(self.parameters.object_error) + noise
        return pose

    def _watch_release(self, block: Array) -> None:
        """Break glue that a block of sensor rows shows over-stretched; follow the tip once free."""
        truth, tip_z = self.truth, block[:, TIP_Z]
        if truth.released:
            truth.travel_after_release = max(
                truth.travel_after_release,
                float(tip_z.max()) - truth.release_z,
                self._lip_z() - truth.release_lip_z,
            )
        elif self._clamped:
            if self._clamp_cleared():
                self._release(float(tip_z[-1]))
        else:
            broken = truth.glue & (block[:, TIP_Z + 1 :].max(axis=0) > self._break_length)
            if broken.any():
                self.model.tendon_stiffness[broken] = self.model.tendon_damping[broken] = 0.0
                truth.glue &= ~broken
                if not truth.glue.any():
                    self._release(float(tip_z[-1]))

    def _clamp_cleared(self) -> bool:
        """True once one ridge's lower edge has passed its plunger: the cell rolls off the other."""
        return any(
            self.data.geom(f"{side}_ridge").xpos[2] - RIDGE_HALF_Z > self.data.body(side).xpos[2]
            for side in ("left", "right")
        )

    def _cell_tilt(self) -> float:
        """Rise of the lip's end: pitch of the cell [rad], positive when the lip is up."""
        _, _, _, qw, qx, qy, qz = self._cell_qpos
        return math.asin(max(-1.0, min(1.0, 2 * (qw * qy - qz * qx))))

    def _release(self, tip_z: float) -> None:
        self.truth.released = True
        self.truth.release_z, self.truth.release_lip_z = tip_z, self._lip_z()

    def _lip_z(self) -> float:
        """Height of the blade a lip's length behind its tip: what pitching about the tip lifts."""
        return float(self._tool_qpos[2] + LIP_LENGTH * math.sin(self._tool_qpos[4]))

    def _watch_contact(self) -> None:
        """Force of the blade on the lip, and how long a lifted cell has been out of touch."""
        truth, touching, on_lip, on_cell = self.truth, False, 0.0, 0.0
        if self.data.ncon:
            pairs = self.data.contact.geom
            with_blade = (pairs == self._blade).any(axis=1)
            for i in np.flatnonzero(with_blade & self._is_cell[pairs].any(axis=1)):
                mujoco.mj_contactForce(self.model, self.data, int(i), self._contact_force)
                touching, on_cell = True, on_cell + float(self._contact_force[0])
                if self._lip in pairs[i]:
                    on_lip += float(self._contact_force[0])
        truth.peak_lip_force = max(truth.peak_lip_force, on_lip)
        truth.was_loaded |= on_cell > 1.5 and self._cell_tilt() > LIFTED_TILT
        lost = truth.was_loaded and not truth.released and not touching
        truth.lost_s = truth.lost_s + CONTACT_MS / 1000 if lost else 0.0
        truth.longest_loss_s = max(truth.longest_loss_s, truth.lost_s)

    def _watch_force(self, external: Array) -> None:
        if not np.isfinite(external).all() or any(
            self.data.warning[kind].number for kind in DIVERGED
        ):
            self.truth.unstable = True
            return
        norms = np.concatenate([self._recent_force, np.linalg.norm(external[:, :3], axis=1)])
        means = np.convolve(norms, np.full(20, 0.05), mode="valid")
        self.truth.peak_force = max(self.truth.peak_force, float(means.max()))
        self._recent_force = norms[-20:]


def _pose_from_joints(joints: Array) -> Array:
    """T_world_tool of (x, y, z, yaw, pitch, roll), intrinsic z-y-x."""
    cz, cy, cx = np.cos(joints[3:])
    sz, sy, sx = np.sin(joints[3:])
    pose = np.eye(4)
    pose[:3, :3] = [
        [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
        [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
        [-sy, cy * sx, cy * cx],
    ]
    pose[:3, 3] = joints[:3]
    return pose


def _joints_from_pose(pose: Array) -> Array:
    """Inverse of `_pose_from_joints`."""
    r: NDArray[Any] = pose[:3, :3]
    pitch = math.asin(max(-1.0, min(1.0, -r[2, 0])))
    yaw, roll = math.atan2(r[1, 0], r[0, 0]), math.atan2(r[2, 1], r[2, 2])
    return np.array([*pose[:3, 3], yaw, pitch, roll])
