"""Topics, rates and limits of the two nodes, as they stand in `configs/robot/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from data.spec import DataSpec, SpecError
from deploy.placement import Placement
from deploy.safety import SafetyLimits


@dataclass(frozen=True)
class Topics:
    """Topic of each observation key by message type, and of the commanded pose."""

    images: Mapping[str, str] = field(
        default_factory=lambda: {"wrist_rgb": "/wrist/image", "scene_rgb": "/scene/image"}
    )
    wrenches: Mapping[str, str] = field(default_factory=lambda: {"wrench": "/wrench"})
    poses: Mapping[str, str] = field(default_factory=lambda: {"pose": "/pose"})
    command: str = "/command"

    def of(self, key: str, spec: DataSpec) -> str:
        """Topic of observation `key`; raises SpecError where no message type gives it."""
        modality, shape = spec.obs[key].modality, spec.obs[key].shape
        wanted = {"image": None, "wrench": (6,), "state": (9,)}[modality]
        topics = {"image": self.images, "wrench": self.wrenches, "state": self.poses}[modality]
        if key not in topics or wanted not in (None, shape):
            raise SpecError(
                f"the policy wants observation {key!r} ({modality}, {shape}); the robot's "
                f"{modality} topics are {dict(topics)}, of shape {wanted or '(height, width, 3)'}. "
                "Set robot.topics or use another checkpoint."
            )
        return topics[key]


@dataclass(frozen=True)
class SensorLimits:
    """Ages [s] from which on a sensor counts as stale, and how many lost wrench samples to fill."""

    image_age: float = 0.2
    wrench_age: float = 0.05
    pose_age: float = 0.05
    max_filled: int = 2

    def age_of(self, modality: str) -> float:
        """The limit of one modality [s]."""
        return {"image": self.image_age, "wrench": self.wrench_age, "state": self.pose_age}[
            modality
        ]


@dataclass(frozen=True)
class PolicyNodeSettings:
    """`robot=ros2`: where the policy node listens, how fast it commands, when it holds."""

    topics: Topics = field(default_factory=Topics)
    sensors: SensorLimits = field(default_factory=SensorLimits)
    safety: SafetyLimits = field(default_factory=lambda: SafetyLimits(max_sensor_age=0.2))
    command_rate_hz: float = 50.0
    world_frame: str = "world"
    torch_threads: int = 1
    pin: Placement = field(default_factory=Placement)
    realtime_priority: int = 10


@dataclass(frozen=True)
class SimNodeSettings:
    """`robot=sim_ros2`: the simulated robot. Commands are interpolated over 1 / command_rate_hz."""

    topics: Topics = field(default_factory=Topics)
    command_rate_hz: float = 50.0
    world_frame: str = "world"
    tool_frame: str = "tool"
    realtime_priority: int = 10
