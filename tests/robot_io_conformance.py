"""What every RobotIO must do; a test module subclasses this and says how to make its robot."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

import numpy as np
import pytest

from data.rotation import pose9_to_matrix
from data.spec import Obs
from deploy.robot_io import STAND_STILL, RobotIO

PATIENCE = 5.0  # [s] to wait for an observation; a middleware needs time to discover its peers


class RobotIOConformance(ABC):
    """Properties of a robot. `wait` lets the robot's clock run; it is real time by default."""

    POSE_KEY = "pose"
    MOVE = 0.004  # [m] commanded along the tool's x axis per policy tick
    REACHED = 0.5  # of a commanded motion that must be measured: impedance control lags

    @abstractmethod
    @pytest.fixture
    def robot(self) -> RobotIO:
        """A fresh robot at the start of an episode, allowed to move."""

    def wait(self, robot: RobotIO, seconds: float) -> None:
        """Let `seconds` of the robot's time pass."""
        time.sleep(seconds)

    def next_obs(self, robot: RobotIO) -> tuple[Obs, float]:
        """The next observation, waiting for it."""
        tick = 1 / robot.spec.rate_hz
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if (seen := robot.observe()) is not None:
                return seen
            self.wait(robot, tick / 4)
        pytest.fail(f"no observation within {PATIENCE} s")

    def position(self, robot: RobotIO) -> np.typing.NDArray[np.float64]:
        """Tool position (3,) in the newest observation, and the tool's x axis (3,), as (2, 3)."""
        obs, _ = self.next_obs(robot)
        while (seen := robot.observe()) is not None:
            obs, _ = seen
        T_world_tool = pose9_to_matrix(obs[self.POSE_KEY])
        return np.stack([T_world_tool[:3, 3], T_world_tool[:3, 0]])

    def drive(self, robot: RobotIO, ticks: int, parts: int = 5) -> None:
        """Command MOVE along x in every tick, in `parts` commands a tick."""
        tick = 1 / robot.spec.rate_hz
        action = STAND_STILL.copy()
        action[0] = self.MOVE / parts
        for _ in range(ticks * parts):
            robot.command(action, tick / parts)
            self.wait(robot, tick / parts)

    def test_observations_fit_the_spec(self, robot: RobotIO) -> None:
        for _ in range(3):
            obs, _ = self.next_obs(robot)
            robot.spec.check_obs(obs)

    def test_an_observation_is_handed_out_once(self, robot: RobotIO) -> None:
        self.next_obs(robot)
        for _ in range(100):  # a buffering robot may have more, but not without end
            if robot.observe() is None:
                return
        pytest.fail("observe() never says that there is nothing new")

    def test_stamps_increase_by_about_a_tick(self, robot: RobotIO) -> None:
        stamps = [self.next_obs(robot)[1] for _ in range(5)]
        steps = np.diff(stamps)
        assert np.all(steps > 0)
        assert np.median(steps) == pytest.approx(1 / robot.spec.rate_hz, rel=0.5)

    def test_commands_in_parts_move_the_tool_along_its_own_axis(self, robot: RobotIO) -> None:
        start, axis = self.position(robot)
        self.drive(robot, ticks=3)
        self.wait(robot, 2 / robot.spec.rate_hz)
        travelled = (self.position(robot)[0] - start) @ axis
        assert self.REACHED * 3 * self.MOVE < travelled < 1.5 * 3 * self.MOVE

    def test_hold_stops_the_tool(self, robot: RobotIO) -> None:
        tick = 1 / robot.spec.rate_hz
        self.drive(robot, ticks=2)
        robot.hold()
        self.wait(robot, 3 * tick)
        before = self.position(robot)[0]
        self.wait(robot, 3 * tick)
        np.testing.assert_allclose(self.position(robot)[0], before, atol=0.1 * self.MOVE)

    def test_without_commands_the_tool_stands_still(self, robot: RobotIO) -> None:
        before = self.position(robot)[0]
        self.wait(robot, 3 / robot.spec.rate_hz)
        np.testing.assert_allclose(self.position(robot)[0], before, atol=0.1 * self.MOVE)

    def test_close_can_be_repeated(self, robot: RobotIO) -> None:
        robot.close()
        robot.close()
