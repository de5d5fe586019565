"""Temporal ensembling: weights, time, and what must not be averaged."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from data.rotation import axis_angle_to_matrix, matrix_to_rot6d
from data.spec import ActionSpec, Obs
from deploy.chunk import ActionChunk
from deploy.controllers.cold import ColdController
from deploy.controllers.ensemble import EnsembleController, ensemble
from envs.history import ObsHistory
from policy.diffusion_policy import DiffusionPolicy
from tests.tiny_env import NAMES, tiny_env
from tests.tiny_policy import TINY_HORIZONS, tiny_policy

DT = 0.1
WIDE = 10.0
PLANE = ActionSpec(("dx", "grip"), ("m", "1"), (-WIDE, -1.0), (WIDE, 1.0), discrete=(1,))
POSE = ActionSpec(NAMES, ("m",) * 3 + ("1",) * 6, (-WIDE,) * 9, (WIDE,) * 9)
Array = NDArray[np.float64]


def chunk(values: list[float], t0: float, grip: float = 1.0) -> ActionChunk:
    return ActionChunk(np.array([[value, grip] for value in values]), t0, DT)


@pytest.fixture(scope="module")
def policy() -> DiffusionPolicy:
    return tiny_policy()


@pytest.fixture(scope="module")
def obs(policy: DiffusionPolicy) -> Obs:
    history = ObsHistory(policy.spec, TINY_HORIZONS)
    history.push(tiny_env()().reset(seed=0)[0])
    return history.windowed()


@pytest.mark.parametrize("growth", [-0.5, 0.5])
def test_weights_are_exponential_in_the_age(growth: float) -> None:
    chunks = [chunk([v] * 4, tick * DT) for tick, v in enumerate((1.0, 10.0, -4.0))]
    mean = ensemble(chunks, 2 * DT, growth, PLANE)
    weights = np.exp(growth * np.arange(3))  # ACT's exp(-m i), or turned round; i = 0 is the oldest
    values = np.array([1.0, 10.0, -4.0])
    first = weights @ values / weights.sum()
    third = weights[1:] @ values[1:] / weights[1:].sum()  # the oldest has run out there
    np.testing.assert_allclose(mean.actions[:, 0], [first, first, third, -4.0])
    assert (mean.t0, mean.dt) == (2 * DT, DT)


@given(st.floats(-2.0, 2.0), st.floats(0.2, 0.4))
def test_plans_that_agree_are_kept_at_any_stamp(growth: float, stamp: float) -> None:
    """All say dx(t) = 3 t; a fractional shift interpolates."""
    chunks = [chunk([3 * (t0 + i * DT) for i in range(8)], t0) for t0 in (0.0, 0.07, 0.1, 0.1999)]
    mean = ensemble(chunks, stamp, growth, PLANE)
    moments = stamp + DT * np.arange(len(mean.actions))
    inside = moments <= 0.7  # from there on the oldest repeats its last action
    np.testing.assert_allclose(mean.actions[inside, 0], 3 * moments[inside], atol=1e-9)
    assert stamp < mean.end <= chunks[-1].end + DT


def test_a_decay_of_any_size_leaves_the_oldest_or_the_newest() -> None:
    chunks = [chunk([v] * 4, tick * DT) for tick, v in enumerate((1.0, 2.0))]
    assert ensemble(chunks, DT, -1e6, PLANE).actions[:, 0].tolist() == [1.0, 1.0, 1.0, 2.0]
    assert ensemble(chunks, DT, 1e6, PLANE).actions[:, 0].tolist() == [2.0] * 4


@given(st.lists(st.sampled_from([-1.0, 1.0]), min_size=1, max_size=5), st.floats(0.0, 0.099))
def test_discrete_dimensions_are_never_averaged(grips: list[float], late: float) -> None:
    chunks = [chunk([0.0] * 8, tick * DT, grip) for tick, grip in enumerate(grips)]
    mean = ensemble(chunks, (len(grips) - 1) * DT + late, -0.01, PLANE)
    assert set(mean.actions[:, 1]) == {grips[-1]}


def test_a_planned_switch_stays_in_its_place_between_ticks() -> None:
    newest = ActionChunk(np.array([[0, -1], [0, -1], [0, 1], [0, 1]]), 0.0, DT)
    assert ensemble([newest], 0.05, -0.01, PLANE).actions[:, 1].tolist() == [-1, -1, 1, 1]
    assert ensemble([newest], 0.15, -0.01, PLANE).actions[:, 1].tolist() == [-1, 1, 1]


def rotating(angle: float, t0: float, axis: tuple[float, float, float] = (0, 0, 1)) -> ActionChunk:
    rot6d = matrix_to_rot6d(axis_angle_to_matrix(np.array(axis) * angle))
    return ActionChunk(np.tile([0, 0, 0, *rot6d], (4, 1)), t0, DT)


def test_means_of_rotations_are_rotations() -> None:
    mean = ensemble([rotating(0.2, 0.0), rotating(1.0, 0.0)], 0.0, 0.0, POSE)
    np.testing.assert_allclose(mean.actions, rotating(0.6, 0.0).actions, atol=1e-12)


def test_of_opposite_rotations_the_newest_is_taken() -> None:
    chunks = [rotating(0.0, 0.0), rotating(np.pi, 0.0)]
    mean = ensemble(chunks, 0.0, 0.0, POSE)
    np.testing.assert_allclose(mean.actions, chunks[1].actions, atol=1e-12)


def test_bounds_hold_after_rotations_are_made_rotations() -> None:
    still = np.array([0, 0, 0, 1, 0, 0, 0, 1, 0])
    spec = replace(POSE, low=tuple(still - 0.15), high=tuple(still + 0.15))
    corner = still + 0.15 * np.array([0, 0, 0, -1, 1, 1, -1, -1, 1])
    mean = ensemble([ActionChunk(corner[None], 0.0, DT)], 0.0, 0.0, spec)
    assert np.all(mean.actions >= spec.low)
    assert np.all(mean.actions <= spec.high)


def test_it_plans_each_tick_and_the_first_chunk_is_the_planners(
    policy: DiffusionPolicy, obs: Obs
) -> None:
    controller, cold = EnsembleController(policy), ColdController(policy, exec_horizon=1)
    controller.reset(3)
    cold.reset(3)
    planned = [cold.update(obs, tick * DT).actions for tick in range(3)]
    chunks = [controller.update(obs, tick * DT, delay=0.4) for tick in range(3)]
    np.testing.assert_allclose(chunks[0].actions[:, :3], planned[0][:, :3], atol=1e-12)
    wanted = np.exp([0, -0.01, -0.02]) @ np.stack([planned[k][2 - k, :3] for k in range(3)])
    np.testing.assert_allclose(chunks[2].actions[0, :3], wanted / np.exp([0, -0.01, -0.02]).sum())
    assert controller.last_nfe == 10
    assert controller.last_seconds["solve"] > 0


def test_it_remembers_no_more_than_what_still_counts(policy: DiffusionPolicy, obs: Obs) -> None:
    controller = EnsembleController(policy, partial(ColdController, num_steps=1, exec_horizon=1))
    for tick in range(3 * TINY_HORIZONS.pred):
        controller.update(obs, tick * DT)
    assert len(controller._chunks) == TINY_HORIZONS.pred
    controller.update(obs, 100.0)
    assert len(controller._chunks) == 1


def test_a_chunk_that_is_kept_for_some_ticks_counts_once(policy: DiffusionPolicy, obs: Obs) -> None:
    controller = EnsembleController(policy, partial(ColdController, num_steps=1, exec_horizon=4))
    chunks = [controller.update(obs, tick * DT) for tick in range(3)]
    np.testing.assert_allclose(chunks[2].actions, chunks[0].actions[2:], atol=1e-9)
    assert chunks[2].end == pytest.approx(chunks[0].end)


def test_reset_forgets_all_chunks(policy: DiffusionPolicy, obs: Obs) -> None:
    controller, runs = EnsembleController(policy), []
    for seed in (1, 1, 2):
        controller.reset(seed)
        runs.append([controller.update(obs, tick * DT).actions for tick in range(3)])
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


@pytest.mark.parametrize("settings", [{"decay": -0.1}, {"favour": "loudest"}])
def test_settings_that_cannot_work_are_refused(
    policy: DiffusionPolicy, settings: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="got"):
        EnsembleController(policy, **settings)
