"""`Prise/MetaWorld-v0`: any of Meta-World's fifty tasks, as named states and, if wanted, images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from data.spec import ActionSpec, DataSpec, Obs, ObsSpec
from envs.metaworld.simulation import MetaWorldSimulation, check_can_jump
from envs.metaworld.tasks import task_named

RATE_HZ = 80.0
CAMERAS = ("corner", "corner2", "corner3", "corner4", "topview", "behindGripper", "gripperPOV")
RENDER_CAMERA = "corner2"
RENDER_SIZE = 480  # [pixels]
STATE_DIM = 39
# Where each key lies in Meta-World's observation: now (18), one step earlier (18), goal (3).
STATES = {
    "hand": (slice(0, 3), "m"),
    "gripper": (slice(3, 4), "1"),
    "object": (slice(4, 11), "m, quaternion"),
    "second_object": (slice(11, 18), "m, quaternion"),
    "goal": (slice(36, 39), "m"),
}


def action_spec() -> ActionSpec:
    """Motion of the hand's set point and the force of the fingers, per tick."""
    return ActionSpec(
        names=("dx", "dy", "dz", "grip"),
        units=("cm", "cm", "cm", "1"),
        low=(-1.0,) * 4,
        high=(1.0,) * 4,
        discrete=(3,),  # The experts switch between a few levels.
    )


def metaworld_spec(task: str, image_size: int, cameras: Sequence[str]) -> DataSpec:
    """Observations and actions of a task; but for its name the same for all of them."""
    if unknown := [camera for camera in cameras if camera not in CAMERAS]:
        raise ValueError(f"Meta-World has no cameras {unknown}; known: {', '.join(CAMERAS)}.")
    obs = {
        f"{camera}_rgb": ObsSpec((image_size, image_size, 3), "image", "1/255", RATE_HZ)
        for camera in cameras
    }
    for key, (where, unit) in STATES.items():
        obs[key] = ObsSpec((where.stop - where.start,), "state", unit, RATE_HZ)
    return DataSpec(obs, action_spec(), RATE_HZ, f"metaworld/{task}")


class MetaWorldEnv(gymnasium.Env[Obs, NDArray[np.float32]]):
    """Success is Meta-World's own flag at any step; `success_at_end` is the flag at the last one.

    `info["task"]` and `info["state"]`, Meta-World's observation (39,), are for the expert.

    Args:
        task: one of `envs.metaworld.tasks.TASKS`, with or without "-v3".
        image_size: pixels of a camera frame's side.
        cameras: any of `CAMERAS`.
        after_success: ticks from the first success to the end. No number changes `success`; 500
            runs every episode to Meta-World's own limit.
        jump_at: tick whose observation is the first with a moved target; success counts from then.
        jump_by: how far the target jumps [m].
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 80}  # noqa: RUF012 (gymnasium's own attribute)

    def __init__(
        self,
        task: str = "peg-insert-side",
        image_size: int = 96,
        cameras: Sequence[str] = (),
        after_success: int = 20,
        jump_at: int | None = None,
        jump_by: Sequence[float] = (0.0, 0.1, 0.0),
        render_mode: str | None = None,
    ) -> None:
        self.render_mode = render_mode
        self.task = task_named(task)
        self.data_spec = metaworld_spec(self.task, image_size, cameras)
        self._image_size, self._cameras, self._after = image_size, tuple(cameras), after_success
        self._jump_at, self._jump_by = jump_at, np.asarray(jump_by, np.float64)
        self._check_settings()
        self.sim = MetaWorldSimulation(self.task)
        assert abs(self.sim.rate_hz - RATE_HZ) < 1e-6
        self.action_space = spaces.Box(-1.0, 1.0, (self.data_spec.action.dim,), np.float32)
        observations = spaces.Dict({key: self._space(key) for key in self.data_spec.obs})
        self.observation_space = cast("spaces.Space[Obs]", observations)
        self._renderers: dict[int, mujoco.Renderer] = {}

    def _check_settings(self) -> None:
        if self._after < 0:
            raise ValueError(f"after_success must be 0 or more ticks, got {self._after}.")
        if self._jump_by.shape != (3,) or not np.isfinite(self._jump_by).all():
            raise ValueError(f"jump_by must be three numbers [m], got {self._jump_by.tolist()}.")
        if self._jump_at is not None:
            check_can_jump(self.task)
            if self._jump_at < 1:
                raise ValueError(f"jump_at must be tick 1 or a later one, got {self._jump_at}.")

    def _space(self, key: str) -> spaces.Box:
        spec, shape = self.data_spec.obs[key], self.data_spec.raw_shape(key)
        if spec.modality == "image":
            return spaces.Box(0, 255, shape, np.uint8)
        return spaces.Box(-np.inf, np.inf, shape, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        """Start an episode; `seed` decides everything in it."""
        super().reset(seed=seed)
        self._state = self.sim.reset(self.np_random)
        self._tick = 0
        self._first_success: int | None = None
        return self._observe(), self._info()

    def step(self, action: NDArray[np.float32]) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        """Move the hand for one tick, 12.5 ms."""
        self._check_action(action)
        self._tick += 1
        if self._tick == self._jump_at:
            self.sim.move_target(self._jump_by)
        state, reward, told = self.sim.step(np.asarray(action, np.float32))
        broken = not np.isfinite(state).all()
        succeeds = bool(told["success"]) and self._tick >= (self._jump_at or 0) and not broken
        if not broken:
            self._state = state
        if succeeds and self._first_success is None:
            self._first_success = self._tick
        ended = broken or self._is_over()
        timeout = self._tick >= self.sim.max_ticks
        info = self._info()
        if ended or timeout:
            info |= self._ending(succeeds, broken)
        return self._observe(), reward, ended, timeout and not ended, info

    def _is_over(self) -> bool:
        first = self._first_success
        return first is not None and self._tick >= first + self._after

    def _ending(self, succeeds: bool, broken: bool) -> dict[str, Any]:
        success = self._first_success is not None and not broken
        metrics = {"success_at_end": float(succeeds), "duration_s": self._tick / RATE_HZ}
        if self._first_success is not None:
            metrics["success_after_s"] = self._first_success / RATE_HZ
        outcome = "unstable" if broken else "success" if success else "timeout"
        return {"success": success, "outcome": outcome, "metrics": metrics}

    def _info(self) -> dict[str, Any]:
        return {"task": self.task, "state": self._state.copy()}

    def _observe(self) -> Obs:
        obs: Obs = {f"{c}_rgb": self._frame(c, self._image_size) for c in self._cameras}
        for key, (where, _) in STATES.items():
            obs[key] = self._state[where].astype(np.float32)
        return obs

    def render(self) -> NDArray[np.uint8]:
        """A corner's view at 480 x 480."""
        return self._frame(RENDER_CAMERA, RENDER_SIZE)

    def _frame(self, camera: str, size: int) -> NDArray[np.uint8]:
        # Not `envs.rendering`: here the mark of the goal must be drawn, and each task has meshes.
        if size not in self._renderers:
            self._renderers[size] = mujoco.Renderer(self.sim.model, size, size)
        renderer = self._renderers[size]
        renderer.update_scene(self.sim.data, camera)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            renderer.scene.flags[flag] = 0
        frame: NDArray[np.uint8] = renderer.render()
        # Meta-World's corner cameras hang upside down.
        return frame[::-1, ::-1].copy() if camera.startswith("corner") else frame

    def close(self) -> None:
        """Let go of the simulation and its graphics contexts."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()
        self.sim.close()

    def _check_action(self, action: NDArray[np.float32]) -> None:
        value, names = np.asarray(action), self.data_spec.action.names
        if value.shape != (len(names),) or not np.isfinite(value).all():
            raise ValueError(
                f"action came as {value.shape} {value}, wanted ({len(names)},) finite numbers."
            )
        if (np.abs(value) > 1 + 1e-6).any():
            i = int(np.argmax(np.abs(value)))
            raise ValueError(
                f"action {names[i]!r} is {value[i]:.5g}, wanted [-1, 1]; clip it to the action "
                "space."
            )
