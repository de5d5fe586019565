"""Seams of runs that are made by hand, and of a real controller with a delay."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from data.rotation import axis_angle_to_matrix, matrix_to_rot6d
from data.spec import ActionSpec
from deploy.agent import LockstepAgent
from deploy.chunk import ActionChunk
from deploy.controllers.cold import ColdController
from deploy.motion import (
    Executed,
    commanded_positions,
    entries,
    figures,
    jerk,
    plan_overlaps,
    seam_jumps,
    stalls,
    switch_delays,
    toggles,
)
from tests.tiny_env import TINY_SPEC, tiny_env
from tests.tiny_policy import TINY_HORIZONS, tiny_policy

DT, TP = 0.1, 6
POSE = TINY_SPEC.action
GRIPPER = ActionSpec(
    ("dx", "dy", "dz", "grip"), ("cm",) * 3 + ("1",), (-1.0,) * 4, (1.0,) * 4, discrete=(3,)
)


def moving(x: float, count: int = TP, angle: float = 0.0) -> NDArray[np.float64]:
    """Actions (count, 9) of `x` [m] along x and `angle` [rad] about z a tick."""
    turn = matrix_to_rot6d(axis_angle_to_matrix([0, 0, angle]))
    return np.tile(np.concatenate([[x, 0, 0], turn]), (count, 1))


def executed(chunks: dict[int, ActionChunk], ticks: int) -> list[Executed]:
    """The run in which each chunk enters at its tick; before the first nothing moves."""
    run, chunk = [], None
    for tick in range(ticks):
        chunk = chunks.get(tick, chunk)
        action = POSE.still if chunk is None else chunk.at(tick * DT)
        run.append(Executed(tick * DT, chunk, action))
    return run


def grips(*values: float) -> NDArray[np.float64]:
    actions = np.zeros((len(values), 4))
    actions[:, 3] = values
    return actions


def test_a_seam_is_where_a_chunk_replaces_one_that_still_has_actions() -> None:
    chunks = [ActionChunk(moving(0.001), t0, DT) for t0 in (0.0, 0.3, 1.2)]
    run = executed({1: chunks[0], 4: chunks[1], 13: chunks[2]}, 18)  # [1] has run out at 0.9
    assert entries(run) == [4]


def test_the_jump_is_what_the_new_chunk_says_minus_what_the_old_one_would_have_done() -> None:
    old = ActionChunk(moving(0.001), 0.0, DT)
    new = ActionChunk(moving(0.004, angle=0.02), 0.2, DT)
    jumps = seam_jumps(executed({0: old, 3: new}, 8), POSE)
    np.testing.assert_allclose(jumps, [[0.003, 0.02]], atol=1e-9)


def test_the_same_plan_made_again_later_has_no_jump_and_agrees() -> None:
    actions = moving(0.001) * np.linspace(1, 2, TP)[:, None]
    first = ActionChunk(actions, 0.0, DT)
    run = executed({0: first, 2: first.shifted_to(0.2), 4: first.shifted_to(0.4)}, 6)
    assert len(seam_jumps(run, POSE)) == 2
    np.testing.assert_allclose(seam_jumps(run, POSE), 0, atol=1e-6)
    np.testing.assert_allclose(plan_overlaps(run, POSE), 0, atol=1e-6)


def test_plans_are_compared_where_both_speak() -> None:
    old, new = moving(0.001), moving(0.001)
    new[TP - 2 :, 0] = 9.0  # beyond the end of the old plan
    new[0, 0] = 0.003
    run = executed({0: ActionChunk(old, 0.0, DT), 3: ActionChunk(new, 0.2, DT)}, 6)
    np.testing.assert_allclose(plan_overlaps(run, POSE)[:, 0], [0.002 / np.sqrt(4)], atol=1e-9)


def test_commanded_positions_follow_the_turning_tool() -> None:
    quarter = moving(1.0, 4, angle=np.pi / 2)
    np.testing.assert_allclose(
        commanded_positions(quarter, POSE)[:, :2],
        [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]],
        atol=1e-9,
    )


def test_lengths_come_out_in_meters() -> None:
    actions = np.array([[1.0, 0.0, 0.0, -1.0]] * 3)
    np.testing.assert_allclose(commanded_positions(actions, GRIPPER)[:, 0], [0, 0.01, 0.02, 0.03])


def test_jerk_of_a_step_in_velocity_is_at_the_seam_alone() -> None:
    run = executed(
        {0: ActionChunk(moving(0.001), 0.0, DT), 4: ActionChunk(moving(0.003), 0.4, DT)}, 9
    )
    at_seam, off_seam = jerk(run, POSE, DT)
    assert at_seam.rms == pytest.approx(0.002 / DT**3)
    assert at_seam.p99 == pytest.approx(0.002 / DT**3)
    assert off_seam.rms == pytest.approx(0, abs=1e-9)


def test_jerk_is_the_third_derivative() -> None:
    times = np.arange(20) * DT
    positions = 0.5 * times**3  # third derivative 3
    actions = moving(0.0, 19)
    actions[:, 0] = np.diff(positions)
    chunk = ActionChunk(actions, 0.0, DT)
    at_seam, off_seam = jerk(executed({0: chunk}, 19), POSE, DT)
    assert off_seam.rms == pytest.approx(3.0)
    assert off_seam.p99 == pytest.approx(3.0)
    assert at_seam.rms == 0


def test_toggles_are_changes_of_side() -> None:
    assert toggles(grips(-1, -0.2, 0.1, 1, -1, -1), GRIPPER) == 2
    assert toggles(moving(0.1), POSE) == 0


def test_switch_delays_count_ticks_until_the_wanted_side_is_reached() -> None:
    wanted = grips(-1, 1, 1, 1, -1, -1, 1)
    done = grips(-1, -1, -1, 1, 1, -1, -1)
    assert switch_delays(done, wanted, GRIPPER) == [2, 1, None]
    assert switch_delays(wanted, wanted, GRIPPER) == [0, 0, 0]


def test_stalls_are_ticks_that_command_no_motion_whatever_the_gripper_does() -> None:
    actions = grips(-1, 1, 1)
    actions[2, 0] = 0.01
    assert stalls(actions, GRIPPER) == 2
    assert stalls(actions, GRIPPER, tolerance=0.1) == 3
    assert stalls(np.stack([POSE.still] * 4), POSE) == 4


def test_figures_of_a_real_run_are_finite_and_count_its_plans() -> None:
    policy = tiny_policy()
    controller = ColdController(policy, num_steps=2, exec_horizon=2)
    agent = LockstepAgent(controller, policy.spec, TINY_HORIZONS)
    obs, run = tiny_env()().reset(seed=0)[0], []
    for tick in range(10):
        action = agent.act(obs, tick * DT).astype(np.float64)
        chunk = controller.update({}, tick * DT)  # costs nothing: the one it has just made
        run.append(Executed(tick * DT, chunk, action))
    result = figures(run, policy.spec.action, DT)
    assert result["seams"] == 4
    assert result["seam_jump_m"] > 0
    assert result["overlap_rad"] > 0
    assert np.isfinite(list(result.values())).all()


def test_a_run_without_ticks_is_refused() -> None:
    with pytest.raises(ValueError, match="ticks"):
        figures([], POSE, DT)
