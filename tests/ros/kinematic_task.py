"""A stand-in for a simulated task: the tool goes where it is told, nothing touches anything."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data.spec import ActionSpec, DataSpec, ObsSpec
from deploy.robot_io import STAND_STILL
from deploy.ros2.settings import Topics
from deploy.ros2.sim_task import Verdict

Array = NDArray[np.float64]
REACH = np.array([0.01] * 3 + [0.2] * 6)
KINEMATIC_SPEC = DataSpec(
    obs={
        "wrist_rgb": ObsSpec((8, 6, 3), "image", "1/255", 10.0),
        "scene_rgb": ObsSpec((8, 6, 3), "image", "1/255", 10.0),
        "pose": ObsSpec((9,), "state", "m, rot6d", 10.0),
        "wrench": ObsSpec((6,), "wrench", "N, N m", 100.0),
    },
    action=ActionSpec(
        names=("dx", "dy", "dz", "r00", "r10", "r20", "r01", "r11", "r21"),
        units=("m",) * 3 + ("1",) * 6,
        low=tuple(float(v) for v in STAND_STILL - REACH),
        high=tuple(float(v) for v in STAND_STILL + REACH),
    ),
    rate_hz=10.0,
    task="kinematic",
)
TOPICS = Topics()


def start_pose() -> Array:
    """Not aligned with the world: a wrong quaternion order or frame would show."""
    T_world_tool = np.eye(4)
    T_world_tool[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    T_world_tool[:3, 3] = 0.1, 0.2, 0.3
    return T_world_tool


class KinematicTask:
    """Ends as a success after `ticks` judged ticks; wrench samples count the milliseconds."""

    spec = KINEMATIC_SPEC

    def __init__(self, ticks: int = 1000) -> None:
        self._ticks = ticks
        self.seeds: list[int] = []
        self.reset(0)
        self.seeds.clear()

    def reset(self, seed: int) -> None:
        self.seeds.append(seed)
        self.T_world_tool, self._T_target = start_pose(), start_pose()
        self._left_ms, self.elapsed_ms, self.judged = 0, 0, 0
        self._wrench: list[Array] = []

    def set_target(self, T_world_tool: Array, duration: float) -> None:
        self._T_target, self._left_ms = T_world_tool, max(1, round(1000 * duration))

    def advance(self, milliseconds: int) -> None:
        self.elapsed_ms += milliseconds
        part = min(1.0, milliseconds / self._left_ms) if self._left_ms > 0 else 1.0
        self._left_ms -= milliseconds
        to_go = self._T_target[:3, 3] - self.T_world_tool[:3, 3]
        self.T_world_tool[:3, 3] += part * to_go
        self._wrench.append(np.full(6, self.elapsed_ms / 1000))

    def measured_pose(self) -> Array:
        return self.T_world_tool.copy()

    def pull_wrench(self) -> Array:
        samples, self._wrench = np.reshape(self._wrench, (-1, 6)), []
        return samples

    def images(self) -> dict[str, NDArray[np.uint8]]:
        rng = np.random.default_rng(self.elapsed_ms)
        return {
            key: rng.integers(0, 256, self.spec.obs[key].shape, dtype=np.uint8)
            for key in ("wrist_rgb", "scene_rgb")
        }

    def begin_tick(self) -> None: ...

    def end_tick(self) -> Verdict | None:
        self.judged += 1
        return Verdict(True, "success", {"ticks": 1.0}) if self.judged >= self._ticks else None
