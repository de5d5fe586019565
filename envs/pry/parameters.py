"""What varies between prying episodes: physics, geometry, looks and sensors; and the splits.

Break force and break stretch are drawn independently. With break force and stiffness drawn
independently instead, the travel at release gives the hidden force away and the task can be solved
without touch. Appearance never depends on the hidden forces.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Holder = Literal["glue", "clamp"]
Shape = Literal["box", "round", "pouch", "series"]
Split = Literal["train", "weak_glue", "strong_glue", "clamp", "geometry", "appearance", "sensor"]
SPLITS: tuple[str, ...] = get_args(Split)


@dataclass(frozen=True)
class Look:
    """Colours, light, camera offsets and distractors."""

    rgba: dict[str, tuple[float, ...]]
    table: tuple[str, tuple[float, ...], tuple[float, ...]]  # builtin texture and its two colours
    light: tuple[float, ...]  # direction (3), diffuse (1)
    camera_shift: dict[str, tuple[float, ...]]  # [m]
    camera_turn: dict[str, tuple[float, ...]]  # [rad], about the camera's own axes
    distractors: tuple[tuple[float, ...], ...]  # x, y, half sizes (3), rgb (3)


@dataclass(frozen=True)
class PryParameters:
    """One episode's draw. Lengths in m, forces in N, angles in rad."""

    holder: Holder
    shape: Shape
    xy: tuple[float, float]
    yaw: float
    case_z: float
    break_force: float
    break_stretch: float
    friction: float
    gap: float  # from the tray floor to the underside of the lip
    lip_thickness: float
    mass: float
    clamp_stiffness: float  # [N/m]
    clamp_preload: float
    clamp_height: float  # plunger above the ridge
    tool_start: tuple[float, float, float, float]  # offset of the tip x, y, z and yaw
    calibration: tuple[float, float, float]  # error of the measured tool position
    object_error: tuple[float, float, float, float]  # x, y, z, yaw of the given object pose
    wrench_bias: tuple[float, ...]
    sensor_scale: float  # multiplies wrench noise and drift
    look: Look = field(repr=False)

    @property
    def stiffness(self) -> float:
        """K = F_b / stretch of one glue patch [N/m]."""
        return self.break_force / self.break_stretch


@dataclass(frozen=True)
class Randomization:
    """Ranges of the training split; 0 switches an axis off."""

    position: float = 0.015  # [m], +- in x and y
    yaw: float = math.radians(15.0)  # +-
    case_height: float = 0.002  # +-
    break_force: tuple[float, float] = (2.0, 10.0)  # log-uniform, per patch
    break_stretch: tuple[float, float] = (0.0003, 0.0045)
    calibration: float = 0.001  # +-
    camera_shift: float = 0.001
    camera_turn: float = math.radians(0.5)
    colours: float = 0.08  # standard deviation of each channel
    distractors: int = 2
    sensor_scale: float = 1.0


BASE_RGBA = {
    "cell": (0.20, 0.45, 0.80, 1.0),
    "lip": (0.85, 0.70, 0.20, 1.0),
    "tray": (0.40, 0.40, 0.45, 1.0),
    "rim": (0.30, 0.30, 0.30, 1.0),
    "blade": (0.90, 0.90, 0.90, 1.0),
    "shank": (0.60, 0.60, 0.60, 1.0),
    "plunger": (0.55, 0.55, 0.60, 1.0),
}


def draw(
    rng: np.random.Generator, split: str = "train", ranges: Randomization | None = None
) -> PryParameters:
    """Draw one episode's parameters; raises ValueError for an unknown split."""
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is unknown; known: {', '.join(SPLITS)}.")
    ranges = _widen(ranges or Randomization(), split)
    uniform = rng.uniform
    holder: Holder = "clamp" if split == "clamp" else "glue"
    shapes: tuple[Shape, ...] = ("round", "pouch", "series") if split == "geometry" else ("box",)
    scale = ranges.sensor_scale
    return PryParameters(
        holder=holder,
        shape=shapes[int(rng.integers(len(shapes)))],
        xy=_pair(uniform(-ranges.position, ranges.position, 2)),
        yaw=float(uniform(-ranges.yaw, ranges.yaw)),
        case_z=float(uniform(-ranges.case_height, ranges.case_height)),
        break_force=float(math.exp(uniform(*np.log(ranges.break_force)))),
        break_stretch=float(uniform(*ranges.break_stretch)),
        friction=float(uniform(0.3, 0.8)),
        gap=float(uniform(0.003, 0.0045)),
        lip_thickness=float(uniform(0.0015, 0.0025)),
        mass=float(uniform(0.03, 0.07)),
        clamp_stiffness=float(uniform(200.0, 900.0)),
        clamp_preload=float(uniform(4.0, 12.0)),
        clamp_height=float(uniform(0.0, 0.002)),
        tool_start=_four(uniform([-0.008, -0.008, -0.006, -0.1], [0.008, 0.008, 0.006, 0.1])),
        calibration=_three(uniform(-ranges.calibration, ranges.calibration, 3)),
        object_error=_four(rng.normal(0.0, [0.0007, 0.0007, 0.0003, 0.01])),
        wrench_bias=tuple(scale * uniform(-1, 1, 6) * ([0.5] * 3 + [0.02] * 3)),
        sensor_scale=scale,
        look=_look(rng, ranges, split),
    )


def _widen(ranges: Randomization, split: str) -> Randomization:
    if split == "weak_glue":
        return replace(ranges, break_force=(1.5, 2.0))
    if split == "strong_glue":
        return replace(ranges, break_force=(10.0, 14.0))
    if split == "appearance":
        turn = math.radians(2.0)
        return replace(ranges, colours=0.4, distractors=4, camera_shift=0.005, camera_turn=turn)
    if split == "sensor":
        return replace(ranges, sensor_scale=2.0 * ranges.sensor_scale)
    return ranges


def _look(rng: np.random.Generator, ranges: Randomization, split: str) -> Look:
    def colour(base: tuple[float, ...]) -> tuple[float, ...]:
        return (*np.clip(np.asarray(base[:3]) + rng.normal(0, ranges.colours, 3), 0.05, 1.0), 1.0)

    textures = ("checker", "gradient", "flat") if split == "appearance" else ("flat", "gradient")
    distractors = []
    for _ in range(int(rng.integers(ranges.distractors + 1))):
        angle, radius = rng.uniform(0.5, 2 * math.pi - 0.5), rng.uniform(0.085, 0.14)
        centre = (radius * math.cos(math.pi - angle), abs(radius * math.sin(angle)))
        distractors.append((*centre, *rng.uniform(0.004, 0.012, 3), *rng.uniform(0.1, 0.9, 3)))
    return Look(
        rgba={name: colour(rgba) for name, rgba in BASE_RGBA.items()},
        table=(
            textures[int(rng.integers(len(textures)))],
            colour((0.65, 0.62, 0.58)),
            colour((0.55, 0.52, 0.48)),
        ),
        light=(*rng.uniform([-0.4, -0.4], [0.4, 0.4]), -1.0, float(rng.uniform(0.5, 0.9))),
        camera_shift={c: _three(rng.normal(0, ranges.camera_shift, 3)) for c in ("wrist", "scene")},
        camera_turn={c: _three(rng.normal(0, ranges.camera_turn, 3)) for c in ("wrist", "scene")},
        distractors=tuple(distractors),
    )


def _pair(x: NDArray[Any]) -> tuple[float, float]:
    return float(x[0]), float(x[1])


def _three(x: NDArray[Any]) -> tuple[float, float, float]:
    return float(x[0]), float(x[1]), float(x[2])


def _four(x: NDArray[Any]) -> tuple[float, float, float, float]:
    return float(x[0]), float(x[1]), float(x[2]), float(x[3])
