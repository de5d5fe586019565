"""`Prise/Pry-v0`: pry a battery cell out of its tray and stop the moment it lets go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from data.rotation import apply_increment, pose9
from data.spec import ActionSpec, DataSpec, Obs, ObsSpec
from envs.pry.judge import Judge, Limits
from envs.pry.parameters import Randomization, draw
from envs.pry.simulation import PrySimulation
from envs.rendering import shared_renderer

RATE_HZ = 10.0
TICK_MS = 100
WRENCH_HZ = 100.0
STEP_LIMIT = 0.0025  # [m] per tick and axis
TURN_LIMIT = 0.15  # each entry of the rotation matrix may differ from the identity by this much
STAND_STILL = np.array([0, 0, 0, 1, 0, 0, 0, 1, 0], np.float32)
ROT6D = ("r00", "r10", "r20", "r01", "r11", "r21")


def action_spec() -> ActionSpec:
    """Increment of the commanded tool pose, in the tool frame."""
    reach = np.array([STEP_LIMIT] * 3 + [TURN_LIMIT] * 6, np.float32)
    return ActionSpec(
        names=("dx", "dy", "dz", *ROT6D),
        units=("m",) * 3 + ("1",) * 6,
        low=tuple(float(v) for v in STAND_STILL - reach),
        high=tuple(float(v) for v in STAND_STILL + reach),
    )


def pry_spec(image_size: int, cameras: tuple[str, ...]) -> DataSpec:
    """Observations and actions of the prying task."""
    obs = {
        f"{c}_rgb": ObsSpec((image_size, image_size, 3), "image", "1/255", RATE_HZ) for c in cameras
    }
    obs["pose"] = ObsSpec((9,), "state", "m, rot6d", RATE_HZ)
    obs["wrench"] = ObsSpec((6,), "wrench", "N, N m", WRENCH_HZ)
    return DataSpec(obs, action_spec(), RATE_HZ, "pry")


class PryEnv(gymnasium.Env[Obs, NDArray[np.float32]]):
    """Observations: camera frames, measured tool pose (9,), the tick's ten wrench samples (10, 6).

    Neither the commanded pose nor the last action is observed: through the impedance controller's
    stiffness either would give the force away. `info["object_pose"]` is for the expert only.

    Args:
        image_size: pixels of a camera frame's side.
        cameras: any of "wrist", "scene"; empty for physics only.
        split: which distribution episodes are drawn from, see `envs.pry.parameters.SPLITS`.
        tolerance: upward travel [m] allowed after release.
        randomization: fields of `Randomization` that differ from their defaults.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (gymnasium's own attribute)

    def __init__(
        self,
        image_size: int = 96,
        cameras: tuple[str, ...] = ("wrist", "scene"),
        split: str = "train",
        tolerance: float = 1.5e-3,
        randomization: dict[str, Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.render_mode = render_mode
        self.data_spec = pry_spec(image_size, tuple(cameras))
        self._image_size, self._cameras, self._split = image_size, tuple(cameras), split
        self._limits = Limits(tolerance=tolerance)
        self._ranges = replace(Randomization(), **(randomization or {}))
        draw(
            np.random.default_rng(0), split, self._ranges
        )  # a wrong split fails here, not at reset
        action = self.data_spec.action
        self.action_space = spaces.Box(
            np.array(action.low, np.float32), np.array(action.high, np.float32)
        )
        observations = spaces.Dict({key: self._space(key) for key in self.data_spec.obs})
        self.observation_space = cast("spaces.Space[Obs]", observations)
        self.sim: PrySimulation
        self.judge: Judge

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
        self.sim = PrySimulation(draw(self.np_random, self._split, self._ranges), self.np_random)
        self.judge = Judge(self.sim, self._limits)
        return self.observe(), self._info()

    def step(self, action: NDArray[np.float32]) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        """Apply one increment of the commanded pose over 100 ms."""
        self._check_action(action)
        before = self.sim.target
        target = apply_increment(before, np.asarray(action, float))
        self.sim.set_target(target, 1.0 / RATE_HZ)
        self.sim.advance(TICK_MS)
        outcome = self.judge.tick(before, target)
        info = self._info()
        if outcome is not None:
            info |= {
                "success": outcome == "success",
                "outcome": outcome,
                "metrics": self.judge.metrics(),
            }
        ended = outcome is not None
        return (
            self.observe(),
            float(outcome == "success"),
            ended and outcome != "timeout",
            outcome == "timeout",
            info,
        )

    def observe(self) -> Obs:
        """What the sensors say now; takes the wrench samples since the last call."""
        obs: Obs = {f"{c}_rgb": self._frame(c, self._image_size) for c in self._cameras}
        obs["pose"] = pose9(self.sim.measured_pose()).astype(np.float32)
        wrench = self.sim.pull_wrench().astype(np.float32)
        obs["wrench"] = wrench[-self.data_spec.samples_per_tick("wrench") :]
        return obs

    def render(self) -> NDArray[np.uint8]:
        """The scene camera at 480 x 480."""
        return self._frame("scene", 480)

    def _frame(self, camera: str, size: int) -> NDArray[np.uint8]:
        return shared_renderer(size).render(self.sim.model, self.sim.data, camera)

    def _info(self) -> dict[str, Any]:
        return {"object_pose": self.sim.noisy_object_pose()}

    def _check_action(self, action: NDArray[np.float32]) -> None:
        value, space = np.asarray(action), self.action_space
        assert isinstance(space, spaces.Box)
        if value.shape != space.shape or not np.isfinite(value).all():
            raise ValueError(
                f"action came as {value.shape} {value}, wanted {space.shape} finite numbers."
            )
        if (value < space.low - 1e-6).any() or (value > space.high + 1e-6).any():
            i = int(np.argmax(np.maximum(space.low - value, value - space.high)))
            name = self.data_spec.action.names[i]
            raise ValueError(
                f"action {name!r} is {value[i]:.5g}, "
                f"wanted [{space.low[i]:.5g}, {space.high[i]:.5g}]; clip it to the action space."
            )
