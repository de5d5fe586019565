"""What the simulated robot's node needs of a task, and the prying task as such."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data.spec import DataSpec
from envs.base import EnvFactory
from envs.pry.env import PryEnv
from envs.rendering import shared_renderer

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """How an episode ended."""

    success: bool
    outcome: str
    metrics: Mapping[str, float] = field(default_factory=dict)


class SimulatedTask(Protocol):
    """A robot and its task, stepped by the millisecond. Poses are in the measured pose's frame."""

    @property
    def spec(self) -> DataSpec:
        """Observations and actions."""
        ...

    def reset(self, seed: int) -> None:
        """Start episode `seed`."""
        ...

    def set_target(self, T_world_tool: Array, duration: float) -> None:
        """Move the commanded tool pose there within `duration` [s]."""
        ...

    def advance(self, milliseconds: int) -> None:
        """Step the physics."""
        ...

    def measured_pose(self) -> Array:
        """Tool pose (4, 4)."""
        ...

    def pull_wrench(self) -> Array:
        """Wrench samples since the last call (n, 6)."""
        ...

    def images(self) -> dict[str, NDArray[np.uint8]]:
        """A frame of each camera, by observation key."""
        ...

    def begin_tick(self) -> None:
        """Judging: a policy tick starts."""
        ...

    def end_tick(self) -> Verdict | None:
        """Judging: the tick is over; None while the episode goes on."""
        ...


class PryTask:
    """`Prise/Pry-v0` in real time."""

    def __init__(self, env: EnvFactory) -> None:
        made = env().unwrapped
        if not isinstance(made, PryEnv):
            raise ValueError(
                f"robot=sim_ros2 simulates the prying task, got {env.id}; use env=pry."
            )
        self._env = made
        self.reset(0)
        self.images()  # opens the graphics context, which takes seconds, before real time starts

    @property
    def spec(self) -> DataSpec:
        """The environment's."""
        return self._env.data_spec

    def reset(self, seed: int) -> None:
        """Start episode `seed`."""
        self._env.reset(seed=seed)
        self._sim = self._env.sim
        self._sim.pull_wrench()
        self.begin_tick()

    def set_target(self, T_world_tool: Array, duration: float) -> None:
        """Take the episode's calibration error out, which measured and commanded poses share."""
        T_true_tool = T_world_tool.copy()
        T_true_tool[:3, 3] -= np.asarray(self._sim.parameters.calibration)
        self._sim.set_target(T_true_tool, duration)

    def advance(self, milliseconds: int) -> None:
        """Step the physics."""
        self._sim.advance(milliseconds)

    def measured_pose(self) -> Array:
        """Tool pose (4, 4)."""
        return self._sim.measured_pose()

    def pull_wrench(self) -> Array:
        """Wrench samples since the last call (n, 6)."""
        return self._sim.pull_wrench()

    def images(self) -> dict[str, NDArray[np.uint8]]:
        """A frame of each camera, by observation key."""
        frames: dict[str, NDArray[np.uint8]] = {}
        for key, spec in self.spec.obs.items():
            if spec.modality == "image":
                renderer: Any = shared_renderer(spec.shape[0])
                frames[key] = renderer.render(
                    self._sim.model, self._sim.data, key.removesuffix("_rgb")
                )
        return frames

    def begin_tick(self) -> None:
        """Note where the tool is commanded."""
        self._tick_start = self._sim.target

    def end_tick(self) -> Verdict | None:
        """Judge the tick by what the commanded tool did in it."""
        outcome = self._env.judge.tick(self._tick_start, self._sim.target)
        if outcome is None:
            return None
        return Verdict(outcome == "success", outcome, self._env.judge.metrics())
