"""A tiny task that runs in microseconds: reach a goal in the plane, then stand still."""

from __future__ import annotations

import os
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from data.rotation import apply_increment, pose9
from data.spec import ActionSpec, DataSpec, Obs, ObsSpec
from envs.base import EnvFactory, ExpertAction, Info

Action = NDArray[np.float32]

STEP = 0.01  # [m] per tick and axis
MAX_TICKS = 20
STAND_STILL = np.array([0, 0, 0, 1, 0, 0, 0, 1, 0], np.float32)
NAMES = ("dx", "dy", "dz", "r00", "r10", "r20", "r01", "r11", "r21")

TINY_SPEC = DataSpec(
    obs={
        "rgb": ObsSpec((8, 8, 3), "image", "1/255", 10.0),
        "pose": ObsSpec((9,), "state", "m, rot6d", 10.0),
        "goal": ObsSpec((2,), "state", "m", 10.0),
        "wrench": ObsSpec((6,), "wrench", "N, N m", 50.0),
    },
    action=ActionSpec(
        names=NAMES,
        units=("m",) * 3 + ("1",) * 6,
        low=tuple(STAND_STILL - np.array([STEP] * 3 + [0.2] * 6)),
        high=tuple(STAND_STILL + np.array([STEP] * 3 + [0.2] * 6)),
    ),
    rate_hz=10.0,
    task="tiny",
)


class TinyEnv(gymnasium.Env[Any, Action]):
    """`raise_on` and `die_on` are seeds whose episode raises, or takes its process down.

    After `jump_at` ticks the goal is thrown far to the other side of the tool; 0 leaves it.
    """

    def __init__(self, raise_on: int = -1, die_on: int = -1, jump_at: int = 0) -> None:
        self.data_spec = TINY_SPEC
        self._jump_at = jump_at
        self._raise_on, self._die_on = raise_on, die_on
        action = TINY_SPEC.action
        low, high = np.array(action.low, np.float32), np.array(action.high, np.float32)
        self.action_space = spaces.Box(low, high)
        self.observation_space = spaces.Dict(
            {
                key: spaces.Box(-np.inf, np.inf, TINY_SPEC.raw_shape(key), np.float32)
                if spec.modality != "image"
                else spaces.Box(0, 255, TINY_SPEC.raw_shape(key), np.uint8)
                for key, spec in TINY_SPEC.obs.items()
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, Info]:
        super().reset(seed=seed)
        self.seed = seed
        self.T_world_tool = np.eye(4)
        self.goal = self.np_random.uniform(-0.08, 0.08, 2)
        self.ticks = 0
        return self._obs(), self._info()

    def step(self, action: Action) -> tuple[Obs, float, bool, bool, Info]:
        if self.seed == self._raise_on:
            raise RuntimeError("the tiny motor is on fire")
        if self.seed == self._die_on:
            os._exit(3)
        if not self.action_space.contains(np.asarray(action)):
            raise ValueError(f"action {action} is out of bounds.")
        self.T_world_tool = apply_increment(self.T_world_tool, action)
        self.ticks += 1
        if self.ticks == self._jump_at:
            tool = self.T_world_tool[:2, 3]
            self.goal = tool - 0.08 * np.sign(self.goal - tool)
        distance = self._distance()
        success = distance < 0.003 and float(np.abs(action[:3]).max()) < 0.001
        truncated = self.ticks >= MAX_TICKS and not success
        info = self._info()
        if success or truncated:
            info |= {
                "success": success,
                "outcome": "success" if success else "timeout",
                "metrics": {"distance_m": distance},
            }
        return self._obs(), float(success), success, truncated, info

    def _distance(self) -> float:
        return float(np.linalg.norm(self.goal - self.T_world_tool[:2, 3]))

    def _info(self) -> Info:
        return {"object_pose": np.array([*self.goal, 0.0, 0.0])}

    def _obs(self) -> Obs:
        wrench = np.zeros((5, 6), np.float32)
        wrench[:, 0] = self._distance() + 0.001 * np.arange(5)
        return {
            "rgb": self.np_random.integers(0, 256, (8, 8, 3), np.uint8),
            "pose": pose9(self.T_world_tool).astype(np.float32),
            "goal": self.goal.astype(np.float32),
            "wrench": wrench,
        }


class TinyExpert:
    """Walks to the goal; every fourth seed it forgets to, and its first action is a mistake."""

    def reset(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._idle = seed % 4 == 3
        self._first = True

    def act(self, obs: Obs, info: Info) -> ExpertAction:
        action = STAND_STILL.copy()
        if not self._idle:
            way = info["object_pose"][:2] - obs["pose"][:2]
            action[:2] = np.clip(way, -0.9 * STEP, 0.9 * STEP)
        executed = action.copy()
        if np.abs(action[:2]).max() > 0.001:
            executed[:2] += self._rng.uniform(-2e-4, 2e-4, 2).astype(np.float32)
        valid, self._first = not self._first, False
        return ExpertAction(action, valid, executed)


class TinyAgent:
    """Walks to the goal with the observations alone."""

    def reset(self, seed: int) -> None:
        self._ticks = 0

    def act(self, raw_obs: Obs, stamp: float) -> Action:
        assert abs(stamp - self._ticks / TINY_SPEC.rate_hz) < 1e-9
        self._ticks += 1
        action = STAND_STILL.copy()
        action[:2] = np.clip(raw_obs["goal"] - raw_obs["pose"][:2], -STEP, STEP)
        return action

    def stats(self) -> dict[str, list[float]]:
        return {"tick_s": [0.0] * self._ticks}


def tiny_env(**kwargs: Any) -> EnvFactory:
    """Factory of `TinyEnv` that imports it in any process."""
    return EnvFactory("tests.tiny_env:Tiny-v0", kwargs)


gymnasium.register(id="Tiny-v0", entry_point="tests.tiny_env:TinyEnv")
