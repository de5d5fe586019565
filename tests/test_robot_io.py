"""The robots that need no middleware, against the RobotIO conformance test."""

from __future__ import annotations

import pytest

from deploy.clock import MonotonicClock, SimClock
from deploy.robot_io import RobotIO
from deploy.sim_robot import SimRobot
from envs.base import EnvFactory
from tests.robot_io_conformance import RobotIOConformance
from tests.tiny_env import tiny_env


class TestSimRobotInSimulatedTime(RobotIOConformance):
    MAKE_ENV = tiny_env()

    @pytest.fixture
    def robot(self) -> RobotIO:
        self.clock = SimClock(100.0)
        return SimRobot(self.MAKE_ENV(), self.clock)

    def wait(self, robot: RobotIO, seconds: float) -> None:
        self.clock.sleep_until(self.clock.now() + seconds)


class TestSimRobotOnThePryingTask(TestSimRobotInSimulatedTime):
    MAKE_ENV = EnvFactory("Prise/Pry-v0", {"cameras": ()})
    MOVE = 0.002


class TestSimRobotInRealTime(RobotIOConformance):
    @pytest.fixture
    def robot(self) -> RobotIO:
        return SimRobot(tiny_env()(), MonotonicClock())
