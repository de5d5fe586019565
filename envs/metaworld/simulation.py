"""A Meta-World environment whose episodes follow from their seed alone, and whose target can jump.

Meta-World draws goals from task lists that freeze the random vector of an environment, and leaves
the bodies of the last episode where they were while the hand is put back. Here the vector is drawn
at each reset, from the seed, and every reset starts from the model as it was loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from gymnasium.spaces import Box
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.sawyer_xyz_env import SawyerXYZEnv
from numpy.typing import NDArray

from envs.metaworld.tasks import VERSION, task_named

Array = NDArray[np.float64]

# What `reset_model` of some task changes in its model.
PLACED = ("body_pos", "body_quat", "site_pos", "site_quat", "geom_pos", "geom_quat")


@dataclass(frozen=True)
class Target:
    """What moves with a task's target: bodies, and the sites that mark it."""

    bodies: tuple[str, ...] = ()
    sites: tuple[str, ...] = ("goal",)


TARGETS = {
    "assembly": Target(bodies=("peg",), sites=("pegTop",)),
    "peg-insert-side": Target(bodies=("box",)),
    "pick-place": Target(),
    "push": Target(),
    "reach": Target(),
}


class MetaWorldSimulation:
    """One task, its goal observed.

    Args:
        task: one of `envs.metaworld.tasks.TASKS`.
    """

    def __init__(self, task: str) -> None:
        self.task = task_named(task)
        env: SawyerXYZEnv = ALL_V3_ENVIRONMENTS[self.task + VERSION]()
        env._partially_observable = False
        env._freeze_rand_vec = False
        env.seeded_rand_vec = True
        env._set_task_called = True
        assert env.goal_space is not None
        self._goal_space: Box = env.goal_space
        self._env = env
        self._placed = {name: getattr(env.model, name).copy() for name in PLACED}
        self._forget_bounds()

    @property
    def model(self) -> mujoco.MjModel:
        """The loaded scene."""
        return self._env.model

    @property
    def data(self) -> mujoco.MjData:
        """Its state."""
        return self._env.data

    @property
    def rate_hz(self) -> float:
        """Steps per simulated second."""
        return float(1.0 / self._env.dt)

    @property
    def max_ticks(self) -> int:
        """Steps of the longest episode."""
        return int(self._env.max_path_length)

    def reset(self, rng: np.random.Generator) -> Array:
        """Draw and begin an episode; the observation (39,)."""
        for name, value in self._placed.items():
            getattr(self.model, name)[:] = value
        mujoco.mj_resetData(self.model, self.data)
        self._env.goal_space = self._goal_space
        self._forget_bounds()
        self._env.np_random = rng
        obs, _ = self._env.reset()
        # The bodies were placed last: cameras must see them there before the first step does.
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        return np.asarray(obs, np.float64)

    def step(self, action: NDArray[np.float32]) -> tuple[Array, float, dict[str, Any]]:
        """Observation (39,), reward and Meta-World's own `info` after one action (4,)."""
        obs, reward, _, _, info = self._env.step(action)
        return np.asarray(obs, np.float64), float(reward), info

    def move_target(self, by: Array) -> None:
        """Move the target, and what belongs to it, by `by` [m] from now on."""
        target, env = TARGETS[self.task], self._env
        assert env._target_pos is not None
        env._target_pos = env._target_pos + by
        for body in target.bodies:
            self.model.body(body).pos = self.model.body(body).pos + by
        for site in target.sites:
            self.model.site(site).pos = env._target_pos
        # Meta-World clips the observed goal to where it draws goals from.
        low, high = self._goal_space.low, self._goal_space.high
        env.goal_space = Box(
            np.minimum(low, low + by), np.maximum(high, high + by), dtype=np.float64
        )
        self._forget_bounds()

    def close(self) -> None:
        """Let go of the simulation."""
        self._env.close()  # type: ignore[no-untyped-call]  # gymnasium's, without types

    def _forget_bounds(self) -> None:
        """They are cached, and were computed for a hidden goal or another goal space."""
        self._env.__dict__.pop("sawyer_observation_space", None)


def check_can_jump(task: str) -> None:
    """Raise ValueError for a task whose target stays where it is."""
    if task not in TARGETS:
        raise ValueError(
            f"the target of Meta-World's {task!r} cannot jump; leave jump_at out, or take one of "
            f"{', '.join(TARGETS)}."
        )
