"""Discrete dimensions of a warm start."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from data.spec import Obs
from deploy.controllers.rti import RTIController
from envs.history import ObsHistory
from policy.discrete import TREATMENTS, soften, softened
from policy.schedule import CosineSchedule
from policy.warm_start import AsIs, ReNoised
from tests.tiny_env import tiny_env
from tests.tiny_gripper import GRIPPER, gripper_policy
from tests.tiny_policy import TINY_HORIZONS, tiny_policy

DT = 0.1
X = torch.tensor([[[0.5, 1.0], [-0.5, -0.8], [0.1, 0.02]]])  # (1, 3, 2); the last is discrete


@pytest.fixture(scope="module")
def obs() -> Obs:
    history = ObsHistory(tiny_policy().spec, TINY_HORIZONS)
    history.push(tiny_env()().reset(seed=0)[0])
    return history.windowed()


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ("none", [1.0, -0.8, 0.02]),
        ("clip", [0.1, -0.1, 0.1]),
        ("scale", [0.1, -0.08, 0.002]),
        ("neutral", [0.0, 0.0, 0.0]),
    ],
)
def test_only_the_discrete_dimension_is_treated(how: str, wanted: list[float]) -> None:
    before = X.clone()
    treated = soften(X, (1,), how, 10.0)
    torch.testing.assert_close(treated[0, :, 1], torch.tensor(wanted))
    assert torch.equal(treated[..., 0], X[..., 0])
    assert torch.equal(X, before)


@pytest.mark.parametrize("how", TREATMENTS)
def test_without_discrete_dimensions_no_bit_changes(how: str, obs: Obs) -> None:
    warm_start = ReNoised()
    assert softened(warm_start, (), how) is warm_start
    chunks = []
    for settings in ({}, {"discrete": how, "discrete_factor": 3.0}):
        controller = RTIController(tiny_policy(), **settings)  # type: ignore[arg-type]  # a union
        controller.reset(1)
        chunks.append([controller.update(obs, tick * DT).actions for tick in range(3)])
    np.testing.assert_array_equal(chunks[0], chunks[1])


def second_plan(how: str, obs: Obs, flipped: bool, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The plan after one whose gripper was as planned, or the opposite."""
    controller = RTIController(gripper_policy(), start_level=0.1, discrete=how)
    first = controller.update(obs, 0.0)
    if flipped:
        actions = first.actions.copy()
        actions[:, GRIPPER] *= -1
        monkeypatch.setattr(controller, "_chunk", type(first)(actions, 0.0, DT))
    return torch.from_numpy(controller.update(obs, DT).actions.copy())


def test_neutral_forgets_what_was_decided_and_none_does_not(
    obs: Obs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for how, same in (("neutral", True), ("none", False)):
        plans = [second_plan(how, obs, flipped, monkeypatch) for flipped in (False, True)]
        assert torch.equal(plans[0], plans[1]) is same


def test_scale_remembers_less_than_none(obs: Obs, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = {}
    for how in ("none", "scale"):
        one, two = (second_plan(how, obs, flipped, monkeypatch) for flipped in (False, True))
        memory[how] = float((one - two)[:, GRIPPER].abs().mean())
    assert 0 < memory["scale"] < 0.5 * memory["none"]


def test_treatment_comes_before_the_noise() -> None:
    warm_start = softened(AsIs(), (1,), "neutral")
    x = warm_start(X, 0.3, CosineSchedule(), None)
    assert torch.equal(x, soften(X, (1,), "neutral", 1.0))
    assert warm_start.factors(0.3, CosineSchedule()) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"discrete": "latch"}, "known: none, clip"), ({"discrete_factor": 0.5}, "at least 1")],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        RTIController(tiny_policy(), **settings)  # type: ignore[arg-type]  # wrong on purpose
