"""Where one chunk takes over from another: what holds for any two chunks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from data.rotation import axis_angle_to_matrix, matrix_to_rot6d
from data.spec import ActionSpec, Obs
from deploy.agent import LockstepAgent
from deploy.chunk import ActionChunk
from deploy.controllers.base import NO_COST
from deploy.seam import Seam, SeamSettings
from tests.tiny_env import TINY_SPEC, tiny_env
from tests.tiny_policy import TINY_HORIZONS

DT, TP = 0.1, 8
SPEC = TINY_SPEC.action
GRIPPER = ActionSpec(("dx", "gripper"), ("m", ""), (-1, -1), (1, 1), discrete=(1,))
seeds = st.integers(0, 2**32 - 1)
blends = st.integers(1, 5)
consumed = st.integers(0, TP - 1)


def moves(seed: int) -> NDArray[np.float64]:
    """Increments (Tp, 9) that turn by up to half a turn."""
    rng = np.random.default_rng(seed)
    turn = rng.normal(size=(TP, 3))
    turn *= rng.uniform(0, np.pi, (TP, 1)) / np.linalg.norm(turn, axis=1, keepdims=True)
    return np.hstack([rng.normal(size=(TP, 3)), matrix_to_rot6d(axis_angle_to_matrix(turn))])


def chunk(actions: NDArray[np.float64], tick: int = 0) -> ActionChunk:
    return ActionChunk(actions, tick * DT, DT)


def gripper(values: NDArray[np.float64], tick: int) -> ActionChunk:
    return chunk(np.stack([np.zeros(TP), values], 1), tick)


@settings(max_examples=50, deadline=None)
@given(seeds, blends, consumed, st.integers(0, 3))
def test_between_two_chunks_translation_lies_between_and_rotation_stays_a_rotation(
    seed: int, ticks: int, now: int, late: int
) -> None:
    old, new = chunk(moves(seed)), chunk(moves(seed + 1), max(0, now - late))
    seam = Seam(SPEC, SeamSettings(ticks))
    seam.enter(old, 0.0)
    joined = seam.enter(new, now * DT)
    for tick in range(now, round(new.end / DT)):
        stamp = tick * DT
        a, b, x = old.at(stamp), new.at(stamp), joined.at(stamp)
        low, high = np.minimum(a, b)[:3], np.maximum(a, b)[:3]
        assert np.all((low - 1e-12 <= x[:3]) & (x[:3] <= high + 1e-12))
        columns = x[3:].reshape(2, 3)
        np.testing.assert_allclose(columns @ columns.T, np.eye(2), atol=1e-9)
        if tick - now >= ticks or old.remaining(stamp) == 0:
            np.testing.assert_array_equal(x, b)


@settings(max_examples=50, deadline=None)
@given(seeds, st.integers(0, 6), st.floats(0, 0.9))
def test_a_discrete_dimension_never_changes_twice_within_the_dwell(
    seed: int, dwell: int, hysteresis: float
) -> None:
    rng = np.random.default_rng(seed)
    seam, executed = Seam(GRIPPER, SeamSettings(2, hysteresis, dwell)), []
    plan = None
    for tick in range(40):
        if plan is None or rng.random() < 0.5:
            plan = gripper(rng.uniform(-1, 1, TP), max(0, tick - int(rng.integers(0, 3))))
        executed.append(seam.enter(plan, tick * DT).at(tick * DT)[1])
    changes = np.flatnonzero(np.diff(np.sign(executed)))
    assert np.all(np.diff(changes) >= dwell)
    assert np.all(np.abs(np.array(executed)[changes + 1]) >= hysteresis)


def test_a_discrete_dimension_changes_when_it_may() -> None:
    seam = Seam(GRIPPER, SeamSettings(0, 0.2, 3))
    seam.enter(gripper(np.full(TP, -1.0), 0), 0.0)
    joined = seam.enter(gripper(np.full(TP, 1.0), 1), DT)
    assert joined.at(DT)[1] == 1
    joined = seam.enter(gripper(np.full(TP, -1.0), 2), 2 * DT)
    assert [joined.at(tick * DT)[1] for tick in range(2, 6)] == [1, 1, -1, -1]
    joined = seam.enter(gripper(np.full(TP, 0.1), 8), 8 * DT)  # within the band: no change
    assert joined.at(8 * DT)[1] == -1


def test_the_pose_of_a_tick_is_not_blended_into_a_discrete_dimension() -> None:
    seam = Seam(GRIPPER, SeamSettings(4))
    seam.enter(gripper(np.full(TP, -1.0), 0), 0.0)
    assert seam.enter(gripper(np.full(TP, 1.0), 1), DT).at(DT)[1] == 1


def test_without_settings_a_seam_changes_nothing() -> None:
    seam, old, new = Seam(SPEC), chunk(moves(0)), chunk(moves(1), 2)
    assert seam.enter(old, 0.0) is old
    assert seam.enter(new, 2 * DT) is new


def test_what_is_no_motion_is_left_for_safety_to_stop() -> None:
    seam, bad = Seam(SPEC, SeamSettings(3)), moves(1)
    bad[:, 3:] = np.nan
    seam.enter(chunk(moves(0)), 0.0)
    new = chunk(bad, 1)
    assert seam.enter(new, DT) is new


def test_after_reset_there_is_nothing_to_blend_with() -> None:
    seam, new = Seam(SPEC, SeamSettings(3)), chunk(moves(1), 1)
    seam.enter(chunk(moves(0)), 0.0)
    seam.reset()
    assert seam.enter(new, DT) is new


@pytest.mark.parametrize("wrong", [{"blend_ticks": -1}, {"hysteresis": 1.0}, {"dwell_ticks": -2}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a seam needs"):
        replace(SeamSettings(), **wrong)  # type: ignore[arg-type]


class Turning:
    """Plans every fourth tick; the plans alternate between right and left."""

    spec = TINY_SPEC

    def __init__(self) -> None:
        self.reset()

    def reset(self, seed: int = 0) -> None:
        self.last_nfe, self.last_seconds, self._updates = 0, dict(NO_COST), 0
        self._plan: ActionChunk | None = None

    def update(self, obs: Obs, stamp: float, delay: float = 0.0) -> ActionChunk:
        if self._plan is None or self._updates % 4 == 0:
            actions = np.tile(self.spec.action.still, (TP, 1))
            actions[:, 0] = 0.005 * (1 if self._updates % 8 else -1)
            self._plan = ActionChunk(actions, stamp, DT)
        self._updates += 1
        return self._plan


def test_the_lockstep_agent_blends_when_a_chunk_comes_into_force() -> None:
    agent = LockstepAgent(Turning(), TINY_SPEC, TINY_HORIZONS, 1, SeamSettings(2))
    obs = tiny_env()().reset(seed=0)[0]
    dx = np.array([agent.act(obs, tick * DT)[0] for tick in range(12)]) / 0.005
    # In force from tick 5 on: a fifth of the way, four fifths, all of it.
    np.testing.assert_allclose(dx[4:8], [-1, -1 + 2 * 17 / 81, -1 + 2 * 64 / 81, 1], atol=1e-6)
