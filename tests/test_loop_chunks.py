"""Chunks in the real-time loop: when they enter, what delay is expected, how they are joined."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import pytest

from data.spec import Obs
from deploy.chunk import ActionChunk
from deploy.loop import RealTimeLoop
from deploy.seam import SeamSettings
from tests.loop_robot import DX, HORIZONS, ListeningRobot, SteadyController, safety

SIGNS = np.array([[1.0] * 9, [-1.0, 1, 1, 1, 1, 1, 1, 1, 1]])


@pytest.fixture
def robot() -> Iterator[ListeningRobot]:
    robot = ListeningRobot()
    yield robot
    robot.close()


def test_a_late_plan_enters_with_the_action_that_is_due() -> None:
    class Counting(SteadyController):
        """Planned in a tick and a half, once; action i moves by (i + 1) tenths of DX."""

        def update(self, obs: Obs, stamp: float, delay: float = 0.0) -> ActionChunk:
            chunk = super().update(obs, stamp)
            if self.updates > 1:
                time.sleep(0.5)
            actions = chunk.actions.copy()
            actions[:, 0] = DX * np.arange(1, 9) / 10
            return ActionChunk(actions, stamp, 0.1)

    robot = ListeningRobot()
    loop = RealTimeLoop(robot, Counting(0.15), safety(), HORIZONS, command_rate_hz=100)
    loop.start()
    time.sleep(0.5)
    stats = loop.stop()
    steps = np.array([a[0] for a in robot.commands]) / DX * 100
    assert steps[0] == pytest.approx(2, abs=1e-3)  # action 1: action 0 was due before
    assert steps.max() >= 4 - 1e-3
    assert np.all(np.diff(steps) > -1e-3)
    assert stats.reaction_s[0] == pytest.approx(0.16, abs=0.04)


def test_the_controller_is_told_the_delay_to_expect() -> None:
    class Noting(SteadyController):
        delays: ClassVar[list[float]] = []

        def update(self, obs: Obs, stamp: float, delay: float = 0.0) -> ActionChunk:
            self.delays.append(delay)
            return super().update(obs, stamp)

    robot = ListeningRobot()
    loop = RealTimeLoop(robot, Noting(0.05), safety(), HORIZONS, command_rate_hz=50)
    loop.start()
    time.sleep(1.2)
    loop.stop()
    # The first updates warm up and do not count.
    assert Noting.delays[-1] == pytest.approx(0.055, abs=0.03)


def test_the_delay_counts_from_the_update_in_which_a_plan_was_begun() -> None:
    class Late(SteadyController):
        """Each update gives the plan that the one before began."""

        begun: float | None = None

        def update(self, obs: Obs, stamp: float, delay: float = 0.0) -> ActionChunk:
            chunk = super().update(obs, stamp if self.begun is None else self.begun)
            self.begun = stamp
            return chunk

    loop = RealTimeLoop(ListeningRobot(), Late(), safety(), HORIZONS)
    loop.start()
    time.sleep(1.0)
    loop.stop()
    assert loop.latency.p95 > 0.05  # a tick is 0.1 s, an update takes nothing


def test_chunks_are_blended_where_they_enter(robot: ListeningRobot) -> None:
    class Swaying(SteadyController):
        """To and fro along x."""

        def update(self, obs: Obs, stamp: float, delay: float = 0.0) -> ActionChunk:
            chunk = super().update(obs, stamp)
            return ActionChunk(chunk.actions * SIGNS[self.updates % 2], stamp, 0.1)

    loop = RealTimeLoop(robot, Swaying(), safety(), HORIZONS, seam=SeamSettings(blend_ticks=2))
    loop.start()
    time.sleep(0.7)
    loop.stop()
    sizes = np.abs([a[0] for a in robot.commands]) / (DX / 5)
    assert sizes.max() <= 1 + 1e-6
    assert sizes.min() < 0.9
