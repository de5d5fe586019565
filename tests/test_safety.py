"""The safety layer: nothing outside the limits, nothing at all when it must not move."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from data.rotation import (
    axis_angle_to_matrix,
    matrix_to_axis_angle,
    matrix_to_rot6d,
    pose9,
    rot6d_to_matrix,
    scale_increment,
)
from data.spec import Obs
from deploy.robot_io import STAND_STILL
from deploy.safety import SafetyLayer, SafetyLimits
from tests.tiny_env import STEP, TINY_SPEC

LIMITS = SafetyLimits(
    max_speed=0.12,
    max_rotation_speed=0.8,
    max_force=20.0,
    max_torque=2.0,
    workspace_low=(-0.05, -0.05, -0.02),
    workspace_high=(0.05, 0.05, 0.02),
)
TICK = 0.1

Action = NDArray[np.float64]


def obs_with(force: float = 0.0, torque: float = 0.0, T: Action | None = None) -> Obs:
    wrench = np.zeros((5, 6), np.float32)
    wrench[2, 1], wrench[3, 5] = force, torque
    return {"wrench": wrench, "pose": pose9(np.eye(4) if T is None else T).astype(np.float32)}


def ready(limits: SafetyLimits = LIMITS) -> SafetyLayer:
    safety = SafetyLayer(TINY_SPEC, limits)
    safety.sense(obs_with(), 0.0)
    safety.enable(True)
    return safety


def move(*translation: float, turn: tuple[float, float, float] = (0, 0, 0)) -> Action:
    return np.concatenate([translation, matrix_to_rot6d(axis_angle_to_matrix(turn))])


def check(safety: SafetyLayer, action: Action, now: float = 0.0) -> Action | None:
    return safety.check(action, duration=TICK, now=now, valid_until=now + 1.0)


def allowed(action: Action | None) -> Action:
    assert action is not None
    return action


def test_a_harmless_action_passes_unchanged_and_uncounted() -> None:
    safety = ready()
    action = move(0.004, -0.003, 0.001, turn=(0.01, 0.02, -0.03))
    np.testing.assert_allclose(allowed(check(safety, action)), action, atol=1e-9)
    assert not safety.clamps
    assert not safety.holds


def test_a_command_shorter_than_a_tick_gets_its_share_of_the_action() -> None:
    action = move(0.004, 0.0, 0.0, turn=(0, 0, 0.05))
    part = allowed(ready().check(action, duration=0.02, now=0.0, valid_until=1.0))
    np.testing.assert_allclose(part, scale_increment(action, 0.2), atol=1e-9)


def test_nothing_moves_before_enable_and_nothing_after_it_is_taken_back() -> None:
    safety = SafetyLayer(TINY_SPEC, LIMITS)
    safety.sense(obs_with(), 0.0)
    assert check(safety, STAND_STILL) is None
    safety.enable(True)
    assert check(safety, STAND_STILL) is not None
    safety.enable(False)
    assert check(safety, STAND_STILL) is None
    assert safety.holds == {"disabled": 2}


@pytest.mark.parametrize(("force", "torque"), [(20.1, 0.0), (0.0, 2.1), (np.nan, 0.0)])
def test_a_wrench_over_the_limit_latches_until_reset(force: float, torque: float) -> None:
    safety = ready()
    safety.sense(obs_with(force, torque), 0.0)
    safety.sense(obs_with(), 0.0)  # the force is gone; the latch is not
    assert check(safety, STAND_STILL) is None
    with pytest.raises(ValueError, match="latched by"):
        safety.enable(True)
    safety.reset()
    safety.sense(obs_with(), 0.0)
    assert check(safety, STAND_STILL) is None
    safety.enable(True)
    assert check(safety, STAND_STILL) is not None


def test_a_single_wrench_sample_over_the_limit_latches() -> None:
    layer = SafetyLayer(TINY_SPEC, SafetyLimits(max_force=10.0))
    layer.enable(True)
    layer.sense_wrench(np.array([0.0, 9.0, 0.0, 0.0, 0.0, 0.0]))
    reasons = [layer.latched]
    layer.sense_wrench(np.array([0.0, 11.0, 0.0, 0.0, 0.0, 0.0]))
    reasons.append(layer.latched)
    assert reasons == [None, "force 11.0 N"]
    assert not layer.moving


def test_a_wrench_just_below_the_limit_does_not_latch() -> None:
    safety = ready()
    safety.sense(obs_with(19.9, 1.9), 0.0)
    assert safety.latched is None


def test_stale_sensors_hold_and_fresh_ones_let_go() -> None:
    safety = ready()
    assert check(safety, STAND_STILL, now=0.31) is None
    assert safety.holds == {"stale sensor": 1}
    safety.sense(obs_with(), 0.3)
    assert check(safety, STAND_STILL, now=0.31) is not None


def test_no_sensor_at_all_holds() -> None:
    safety = SafetyLayer(TINY_SPEC, LIMITS)
    safety.enable(True)
    assert check(safety, STAND_STILL) is None


def test_a_chunk_past_its_end_holds() -> None:
    assert ready().check(STAND_STILL, duration=TICK, now=0.2, valid_until=0.2) is None


@pytest.mark.parametrize(
    "action",
    [
        np.full(9, np.nan),
        np.array([np.inf, 0, 0, 1, 0, 0, 0, 1, 0]),
        np.zeros(9),
        np.array([0, 0, 0, 1, 0, 0, 2, 0, 0.0]),
        np.zeros(3),
    ],
)
def test_what_is_no_motion_holds(action: Action) -> None:
    safety = ready()
    assert check(safety, action) is None
    assert safety.holds.total() == 1


def test_each_clamp_is_counted_under_its_reason() -> None:
    safety = ready(replace(LIMITS, max_speed=0.08))
    check(safety, move(0.009, 0.0, 0.0))
    check(safety, move(0.0, 0.05, 0.0))
    check(safety, move(0.0, 0.0, 0.0, turn=(0, 0.09, 0)))
    assert safety.clamps == {"speed": 2, "translation bounds": 1, "rotation speed": 1}


def test_the_commanded_pose_stops_at_the_workspace_box_and_comes_back_freely() -> None:
    safety = ready()
    x = 0.0
    for _ in range(20):
        x += allowed(check(safety, move(STEP, 0.0, 0.0)))[0]
    assert x == pytest.approx(0.05)
    assert safety.clamps["workspace"] > 0
    assert allowed(check(safety, move(-STEP, 0.0, 0.0)))[0] == pytest.approx(-STEP)


def test_a_tool_outside_the_box_is_led_back_at_the_allowed_speed() -> None:
    safety = SafetyLayer(TINY_SPEC, LIMITS)
    T_world_tool = np.eye(4)
    T_world_tool[0, 3] = 0.2
    safety.sense(obs_with(T=T_world_tool), 0.0)
    safety.enable(True)
    assert allowed(check(safety, move(STEP, 0.0, 0.0)))[0] == pytest.approx(-STEP)


numbers = st.floats(-2.0, 2.0) | st.sampled_from([np.nan, np.inf, -np.inf, 1e9, 0.0, 1.0])
actions = st.lists(numbers, min_size=9, max_size=9).map(np.array) | st.builds(
    lambda xyz, turn: move(*xyz, turn=turn),
    st.tuples(*[st.floats(-0.03, 0.03)] * 3),
    st.tuples(*[st.floats(-1.5, 1.5)] * 3),
)
events = st.one_of(
    st.tuples(st.just("check"), actions, st.sampled_from([0.002, 0.02, 0.1, 0.5])),
    st.tuples(st.just("check"), actions, st.sampled_from([0.02, 0.1])),
    st.tuples(st.just("sense"), st.floats(0, 25), st.floats(0, 1.5)),
    st.tuples(st.just("enable"), st.booleans(), st.none()),
    st.tuples(st.just("wait"), st.floats(0, 0.4), st.none()),
    st.tuples(st.just("reset"), st.none(), st.none()),
)


def assert_within_limits(action: Action, duration: float) -> None:
    fraction = min(1.0, duration * TINY_SPEC.rate_hz)
    slack = 1 + 1e-5
    assert np.linalg.norm(action[:3]) <= LIMITS.max_speed * duration * slack
    assert np.abs(action[:3]).max() <= STEP * fraction * slack
    turn = matrix_to_axis_angle(rot6d_to_matrix(action[3:]))
    assert np.linalg.norm(turn) <= LIMITS.max_rotation_speed * duration * slack + 1e-9
    tick = scale_increment(action, 1 / fraction)
    assert np.abs(tick[3:] - STAND_STILL[3:]).max() <= 0.2 * slack


@settings(deadline=None, max_examples=150)
@given(st.lists(events, max_size=25))
def test_no_sequence_of_inputs_gets_motion_out_of_limits_or_while_it_is_forbidden(
    sequence: list[tuple[str, object, object]],
) -> None:
    safety, now, allowed_at_all, over_force = SafetyLayer(TINY_SPEC, LIMITS), 0.0, False, False
    for kind, first, second in sequence:
        if kind == "wait":
            assert isinstance(first, float)
            now += first
        elif kind == "reset":
            safety.reset()
            allowed_at_all = over_force = False
        elif kind == "enable":
            assert isinstance(first, bool)
            if first and over_force:
                with pytest.raises(ValueError, match="latched"):
                    safety.enable(True)
            else:
                safety.enable(first)
                allowed_at_all = first
        elif kind == "sense":
            assert isinstance(first, float)
            assert isinstance(second, float)
            safety.sense(obs_with(first, second), now)
            over_force = over_force or first > LIMITS.max_force
        else:
            assert isinstance(first, np.ndarray)
            assert isinstance(second, float)
            safe = safety.check(first, duration=second, now=now, valid_until=now + 0.1)
            if safe is None:
                continue
            assert allowed_at_all
            assert not over_force
            assert_within_limits(safe, second)


@settings(deadline=None, max_examples=50)
@given(st.lists(actions, min_size=1, max_size=30))
def test_the_commanded_tool_never_leaves_the_workspace(sequence: list[Action]) -> None:
    safety, T_world_tool = ready(), np.eye(4)
    for action in sequence:
        safe = check(safety, action)
        if safe is None:
            continue
        Delta = np.eye(4)
        Delta[:3, :3], Delta[:3, 3] = rot6d_to_matrix(safe[3:]), safe[:3]
        T_world_tool = T_world_tool @ Delta
        assert LIMITS.workspace_low is not None
        assert LIMITS.workspace_high is not None
        assert np.all(T_world_tool[:3, 3] >= np.array(LIMITS.workspace_low) - 1e-6)
        assert np.all(T_world_tool[:3, 3] <= np.array(LIMITS.workspace_high) + 1e-6)


@pytest.mark.parametrize(
    ("limits", "word"),
    [
        ({"max_speed": 0.0}, "max_speed"),
        ({"max_force": float("nan")}, "max_force"),
        ({"workspace_low": (0.0, 0.0, 0.0)}, "go together"),
        ({"workspace_low": (0.0, 0.0, 1.0), "workspace_high": (1.0, 1.0, 0.0)}, "below"),
    ],
)
def test_limits_that_limit_nothing_are_refused(limits: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        SafetyLimits(**limits)  # type: ignore[arg-type]  # wrong values are the point


def test_a_workspace_without_a_measured_pose_is_refused() -> None:
    with pytest.raises(ValueError, match="needs observation 'pose'"):
        SafetyLayer(TINY_SPEC.select(["wrench"]), LIMITS)
