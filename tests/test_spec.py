"""The shared vocabulary."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from data.spec import ActionSpec, DataSpec, Horizons, Obs, ObsSpec, SpecError
from tests.tiny_store import STORE_SPEC, random_episode


def raw_obs() -> Obs:
    return {key: rows[0] for key, rows in random_episode(1, 0).obs.items()}


def test_a_spec_survives_json() -> None:
    back = DataSpec.from_dict(json.loads(json.dumps(STORE_SPEC.to_dict())))
    assert back == STORE_SPEC
    assert back.task == STORE_SPEC.task


@pytest.mark.parametrize("raw", [{}, {"obs": {"a": {"form": 1}}}, {"obs": []}, None, "spec"])
def test_what_is_no_spec_is_a_spec_error(raw: Any) -> None:
    with pytest.raises(SpecError, match="not a data spec"):
        DataSpec.from_dict(raw)


def test_a_fast_modality_has_its_samples_of_a_tick_in_front() -> None:
    assert STORE_SPEC.samples_per_tick("wrench") == 5
    assert STORE_SPEC.raw_shape("wrench") == (5, 2)
    assert STORE_SPEC.raw_shape("pose") == (3,)
    assert not STORE_SPEC.is_fast("rgb")


def test_select_keeps_the_keys_asked_for_and_names_the_missing() -> None:
    assert list(STORE_SPEC.select(["pose"]).obs) == ["pose"]
    with pytest.raises(SpecError, match="depth"):
        STORE_SPEC.select(["depth"])


def test_check_provides_accepts_more_than_wanted_and_ignores_the_task() -> None:
    wanted = replace(STORE_SPEC.select(["pose"]), task="other")
    STORE_SPEC.check_provides(wanted, "the policy")


@pytest.mark.parametrize(
    "wanted",
    [
        replace(STORE_SPEC, rate_hz=5.0),
        replace(STORE_SPEC, action=ActionSpec(("dx",), ("m",), (-1.0,), (1.0,))),
        replace(STORE_SPEC, obs={"pose": ObsSpec((4,), "state", "m", 10.0)}),
        replace(STORE_SPEC, obs={"depth": ObsSpec((4,), "state", "m", 10.0)}),
    ],
)
def test_check_provides_refuses_what_differs(wanted: DataSpec) -> None:
    with pytest.raises(SpecError, match="the policy wants"):
        STORE_SPEC.check_provides(wanted, "the policy")


def test_check_obs_accepts_a_right_observation() -> None:
    STORE_SPEC.check_obs(raw_obs() | {"more": np.zeros(1)})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rgb", np.zeros((4, 6, 3), np.float32)),
        ("rgb", np.zeros((6, 4, 3), np.uint8)),
        ("pose", np.zeros(3, np.float64)),
        ("pose", np.array([0, np.nan, 0], np.float32)),
        ("wrench", np.zeros(2, np.float32)),
        ("wrench", np.full((5, 2), np.inf, np.float32)),
    ],
)
def test_check_obs_names_the_key_that_is_wrong(key: str, value: np.ndarray[Any, Any]) -> None:
    with pytest.raises(SpecError, match=key):
        STORE_SPEC.check_obs(raw_obs() | {key: value})


def test_check_obs_names_a_missing_key() -> None:
    obs = raw_obs()
    del obs["pose"]
    with pytest.raises(SpecError, match="'pose' is missing"):
        STORE_SPEC.check_obs(obs)


def test_action_bounds_must_fit_the_names() -> None:
    with pytest.raises(SpecError):
        ActionSpec(("dx", "dy"), ("m", "m"), (-1.0,), (1.0, 1.0))


def test_an_unknown_modality_is_refused() -> None:
    with pytest.raises(SpecError, match="sound"):
        ObsSpec((1,), "sound", "", 10.0)  # type: ignore[arg-type]  # what a file could say


def test_horizons_start_at_one() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Horizons(obs=0)


def test_a_sensor_that_is_no_whole_multiple_of_the_policys_rate_is_refused() -> None:
    obs = {"wrench": ObsSpec((6,), "wrench", "N, N m", 125.0)}
    with pytest.raises(SpecError, match=r"'wrench' comes at 125\.0 Hz.* whole multiple"):
        replace(STORE_SPEC, obs=obs, rate_hz=10.0)
