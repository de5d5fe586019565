"""An environment as a robot."""

from __future__ import annotations

import numpy as np
import pytest

from data.spec import DataSpec
from deploy.clock import SimClock
from deploy.robot_io import STAND_STILL
from deploy.sim_robot import SimRobot
from tests.tiny_env import MAX_TICKS, STEP, TinyExpert, tiny_env

TICK = 0.1


@pytest.fixture
def clock() -> SimClock:
    return SimClock(7.0)


@pytest.fixture
def robot(clock: SimClock) -> SimRobot:
    return SimRobot(tiny_env()(), clock)


def pass_time(clock: SimClock, seconds: float) -> None:
    clock.sleep_until(clock.now() + seconds)


def x_of(robot: SimRobot) -> float:
    seen = robot.observe()
    assert seen is not None
    return float(seen[0]["pose"][0])


def step_x(dx: float) -> np.typing.NDArray[np.float64]:
    action = STAND_STILL.copy()
    action[0] = dx
    return action


def test_one_command_a_tick_is_one_step_of_the_environment(
    robot: SimRobot, clock: SimClock
) -> None:
    env = tiny_env()()
    obs, info = env.reset(seed=0)
    expert = TinyExpert()
    expert.reset(0)
    for tick in range(5):
        seen = robot.observe()
        assert seen is not None
        for key, value in obs.items():
            np.testing.assert_allclose(seen[0][key], value, atol=1e-6)
        assert seen[1] == pytest.approx(7.0 + tick * TICK)
        action = expert.act(obs, info).to_execute
        robot.command(action, TICK)
        obs, _, _, _, info = env.step(action)
        pass_time(clock, TICK)


def test_five_commands_a_tick_add_up(robot: SimRobot, clock: SimClock) -> None:
    assert x_of(robot) == 0.0
    for _ in range(5):
        robot.command(step_x(0.0015), 0.02)
        pass_time(clock, 0.02)
    assert x_of(robot) == pytest.approx(0.0075)


def test_ticks_nobody_looked_at_are_handed_out_oldest_first(
    robot: SimRobot, clock: SimClock
) -> None:
    x_of(robot)
    for _ in range(3):
        robot.command(step_x(0.002), TICK)
        pass_time(clock, TICK)
    assert [round(x_of(robot), 6) for _ in range(3)] == [0.002, 0.004, 0.006]
    assert robot.observe() is None


def test_hold_drops_the_rest_of_the_tick(robot: SimRobot, clock: SimClock) -> None:
    x_of(robot)
    robot.command(step_x(0.005), TICK)
    pass_time(clock, 0.05)
    robot.hold()
    pass_time(clock, 0.05)
    assert x_of(robot) == 0.0


def test_commands_crowded_into_one_tick_stay_within_the_bounds(
    robot: SimRobot, clock: SimClock
) -> None:
    x_of(robot)
    for _ in range(3):
        robot.command(step_x(0.009), TICK)
    pass_time(clock, TICK)
    assert x_of(robot) == pytest.approx(STEP)


def test_after_the_episode_there_is_nothing_new_until_reset(
    robot: SimRobot, clock: SimClock
) -> None:
    observed = 0
    for _ in range(MAX_TICKS + 5):
        observed += robot.observe() is not None
        pass_time(clock, TICK)
    assert observed == MAX_TICKS + 1
    assert robot.done
    assert robot.info["outcome"] == "timeout"
    robot.reset(3)
    assert robot.observe() is not None


def test_a_command_without_duration_is_refused(robot: SimRobot) -> None:
    with pytest.raises(ValueError, match="duration"):
        robot.command(STAND_STILL, 0.0)


def test_its_spec_is_the_environments(robot: SimRobot) -> None:
    assert isinstance(robot.spec, DataSpec)
    assert set(robot.spec.obs) == {"rgb", "pose", "goal", "wrench"}
