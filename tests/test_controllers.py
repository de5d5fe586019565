"""Controllers on a small real policy: when they plan, from what, and how often the network runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from data.build import build
from data.spec import Obs
from deploy.chunk import ActionChunk
from deploy.controllers.cold import ColdController
from deploy.controllers.rti import WARM_STARTS, RTIController
from envs.history import ObsHistory
from policy.diffusion_policy import DiffusionPolicy
from policy.samplers.ddim import DDIM
from policy.samplers.ddpm import DDPM
from policy.warm_start import Scaled
from tests.tiny_env import tiny_env
from tests.tiny_policy import TINY_HORIZONS, tiny_policy

DT = 0.1


@pytest.fixture(scope="module")
def policy() -> DiffusionPolicy:
    return tiny_policy()


@pytest.fixture(scope="module")
def obs(policy: DiffusionPolicy) -> Obs:
    history = ObsHistory(policy.spec, TINY_HORIZONS)
    history.push(tiny_env()().reset(seed=0)[0])
    return history.windowed()


def priors_of(policy: DiffusionPolicy, monkeypatch: pytest.MonkeyPatch) -> list[Tensor | None]:
    """The priors that `begin` is given from now on; `begin` still does its work."""
    seen: list[Tensor | None] = []
    begin = policy.begin

    def listening(context: Tensor, **kwargs: Any) -> Any:
        seen.append(kwargs.get("prior"))
        return begin(context, **kwargs)

    monkeypatch.setattr(policy, "begin", listening)
    return seen


def test_cold_plans_every_exec_horizon_ticks_and_costs_nothing_between(
    policy: DiffusionPolicy, obs: Obs
) -> None:
    controller = ColdController(policy, num_steps=4, exec_horizon=3)
    nfe, chunks = [], []
    for tick in range(9):
        chunks.append(controller.update(obs, 5.0 + tick * DT))
        nfe.append(controller.last_nfe)
    assert nfe == [4, 0, 0] * 3
    assert len({id(chunk) for chunk in chunks}) == 3
    assert [chunk.t0 for chunk in chunks[::3]] == pytest.approx([5.0, 5.3, 5.6])


def test_cold_counts_consumption_by_time_not_by_updates(policy: DiffusionPolicy, obs: Obs) -> None:
    controller = ColdController(policy, num_steps=2, exec_horizon=3)
    first = controller.update(obs, 0.0)
    assert controller.update(obs, 0.24) is first
    assert controller.update(obs, 1.7) is not first


@pytest.mark.parametrize("sampler", [DDIM(), DDPM(), None])
def test_cold_is_the_policys_own_sampling(
    policy: DiffusionPolicy, obs: Obs, sampler: DDIM | DDPM | None
) -> None:
    controller = ColdController(policy, num_steps=5, sampler=sampler)
    controller.reset(seed=3)
    chunk = controller.update(obs, 0.0)
    with torch.inference_mode():
        state = policy.begin(
            policy.encode({key: torch.from_numpy(obs[key])[None] for key in policy.spec.obs}),
            num_steps=5,
            sampler=sampler,
            generator=torch.Generator().manual_seed(3),
        )
        while not state.done:
            state = policy.step(state)
        np.testing.assert_allclose(chunk.actions, policy.actions(state)[0], atol=1e-6)


def test_rti_is_cold_once_and_then_plans_every_tick(policy: DiffusionPolicy, obs: Obs) -> None:
    controller = RTIController(policy, nfe=2, cold_steps=6)
    nfe = []
    for tick in range(4):
        chunk = controller.update(obs, tick * DT)
        nfe.append(controller.last_nfe)
        assert chunk.t0 == tick * DT
        assert chunk.dt == DT
    assert nfe == [6, 2, 2, 2]


def test_rti_with_an_exec_horizon_replans_from_the_plan_that_was_executed(
    policy: DiffusionPolicy, obs: Obs, monkeypatch: pytest.MonkeyPatch
) -> None:
    priors = priors_of(policy, monkeypatch)
    controller = RTIController(policy, cold_steps=6, exec_horizon=3)
    chunks, nfe = [], []
    for tick in range(7):
        chunks.append(controller.update(obs, tick * DT))
        nfe.append(controller.last_nfe)
    assert nfe == [6, 0, 0, 1, 0, 0, 1]
    assert chunks[2] is chunks[0]
    assert priors[1] is not None
    np.testing.assert_allclose(priors[1][0], chunks[0].shifted_to(3 * DT).actions, atol=1e-6)


@pytest.mark.parametrize("consumed", [1.0, 3.0, 0.4, 2.5])
def test_rti_starts_from_the_last_plan_shifted_by_the_time_consumed(
    policy: DiffusionPolicy, obs: Obs, consumed: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    priors = priors_of(policy, monkeypatch)
    controller = RTIController(policy)
    first = controller.update(obs, 1.0)
    controller.update(obs, 1.0 + consumed * DT)
    assert priors[0] is None
    assert priors[1] is not None
    wanted = first.shifted_to(1.0 + consumed * DT).actions
    np.testing.assert_allclose(priors[1][0], wanted, atol=1e-6)


def test_rti_is_cold_again_when_the_last_plan_has_run_out(
    policy: DiffusionPolicy, obs: Obs, monkeypatch: pytest.MonkeyPatch
) -> None:
    priors = priors_of(policy, monkeypatch)
    controller = RTIController(policy, cold_steps=6)
    controller.update(obs, 0.0)
    controller.update(obs, TINY_HORIZONS.pred * DT)
    assert priors == [None, None]
    assert controller.last_nfe == 6


@pytest.mark.parametrize("name", sorted(WARM_STARTS))
def test_rti_takes_a_warm_start_by_name(policy: DiffusionPolicy, obs: Obs, name: str) -> None:
    controllers = [RTIController(policy, warm_start=w) for w in (name, WARM_STARTS[name]())]
    chunks = [[c.update(obs, tick * DT) for tick in range(2)][-1] for c in controllers]
    np.testing.assert_array_equal(chunks[0].actions, chunks[1].actions)


Controller = ColdController | RTIController


def run(controller: Controller, obs: Obs, seed: int) -> list[ActionChunk]:
    controller.reset(seed)
    return [controller.update(obs, tick * DT) for tick in range(3)]


@pytest.mark.parametrize("kind", [ColdController, RTIController])
def test_reset_forgets_everything_and_the_seed_decides_the_noise(
    policy: DiffusionPolicy, obs: Obs, kind: type[ColdController] | type[RTIController]
) -> None:
    controller = kind(policy)
    first, again, other = (run(controller, obs, seed) for seed in (1, 1, 2))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.actions, two.actions)
    assert not np.array_equal(first[-1].actions, other[-1].actions)


@pytest.mark.parametrize("kind", [ColdController, RTIController])
def test_global_randomness_is_neither_used_nor_changed(
    policy: DiffusionPolicy, obs: Obs, kind: type[ColdController] | type[RTIController]
) -> None:
    controller = kind(policy)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = run(controller, obs, 1)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(1)
    np.testing.assert_array_equal(first[-1].actions, run(controller, obs, 1)[-1].actions)


@pytest.mark.parametrize("kind", [ColdController, RTIController])
def test_actions_stay_within_the_bounds(
    policy: DiffusionPolicy, obs: Obs, kind: type[ColdController] | type[RTIController]
) -> None:
    action = policy.spec.action
    for chunk in run(kind(policy), obs, 0):
        assert np.all(chunk.actions >= np.array(action.low) - 1e-6)
        assert np.all(chunk.actions <= np.array(action.high) + 1e-6)


def test_what_is_not_the_network_costs_less_than_0_3_ms(policy: DiffusionPolicy, obs: Obs) -> None:
    import time

    controller, overheads = RTIController(policy), []
    for tick in range(60):
        started = time.perf_counter()
        controller.update(obs, tick * DT)
        whole = time.perf_counter() - started
        assert min(controller.last_seconds.values()) > 0
        overheads.append(whole - sum(controller.last_seconds.values()))
    assert np.median(overheads) < 3e-4


def test_controllers_are_built_from_plain_dicts(policy: DiffusionPolicy) -> None:
    rti = build(
        {
            "_target_": "deploy.controllers.rti.RTIController",
            "nfe": 2,
            "warm_start": {"_target_": "policy.warm_start.Scaled"},
        },
        policy=policy,
    )
    assert isinstance(rti, RTIController)
    assert rti.spec == policy.spec
    cold = build(
        {
            "_target_": "deploy.controllers.cold.ColdController",
            "sampler": {"_target_": "policy.samplers.ddpm.DDPM"},
        },
        policy=policy,
    )
    assert isinstance(cold, ColdController)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda p: ColdController(p, exec_horizon=99), "exec_horizon"),
        (lambda p: ColdController(p, num_steps=0), "steps"),
        (lambda p: RTIController(p, start_level=0.0), "level"),
        (lambda p: RTIController(p, start_level=0.01, nfe=5), "steps"),
        (lambda p: RTIController(p, warm_start="hot"), "renoised"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(
    policy: DiffusionPolicy, make: Any, word: str
) -> None:
    with pytest.raises(ValueError, match=word):
        make(policy)


def test_scaled_and_renoised_differ(policy: DiffusionPolicy, obs: Obs) -> None:
    scaled, renoised = RTIController(policy, warm_start=Scaled()), RTIController(policy)
    assert not np.array_equal(run(scaled, obs, 0)[1].actions, run(renoised, obs, 0)[1].actions)
