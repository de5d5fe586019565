"""Real-time chunking on a small real policy: what is frozen, when it plans, what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from data.build import build
from data.spec import Obs
from deploy.commands.usage import CONFIGS
from deploy.controllers.cold import ColdController
from deploy.controllers.rtc import RTCController
from envs.history import ObsHistory
from policy.diffusion_policy import DiffusionPolicy
from policy.guidance import MODES, VectorJacobian, overlap_weights
from policy.parameterization import Epsilon, V
from tests.tiny_env import tiny_env
from tests.tiny_policy import TINY_HORIZONS, tiny_policy

DT, TP = 0.1, TINY_HORIZONS.pred


@pytest.fixture(scope="module")
def policy() -> DiffusionPolicy:
    return tiny_policy()


def observed(policy: DiffusionPolicy, seed: int = 0) -> Obs:
    history = ObsHistory(policy.spec, TINY_HORIZONS)
    history.push(tiny_env()().reset(seed=seed)[0])
    return history.windowed()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("delay", "frozen"), [(0.0, 0), (0.2, 2), (0.21, 3), (0.3, 3), (0.6, 6)])
def test_the_delay_rounded_up_is_frozen_and_the_rest_is_new(
    policy: DiffusionPolicy, mode: str, delay: float, frozen: int
) -> None:
    controller = RTCController(policy, mode=mode, exec_horizon=2, num_steps=3)
    first = controller.update(observed(policy, 0), 1.0, delay)
    second = controller.update(observed(policy, 1), 1.2, delay)
    committed = first.actions[2:]
    np.testing.assert_array_equal(second.actions[:frozen], committed[:frozen])
    assert not np.allclose(second.actions[frozen:], first.shifted_to(1.2).actions[frozen:])


@pytest.mark.parametrize("mode", MODES)
def test_a_prefix_of_the_whole_last_plan_returns_it(policy: DiffusionPolicy, mode: str) -> None:
    controller = RTCController(policy, mode=mode, exec_horizon=1)
    first = controller.update(observed(policy), 0.0)
    second = controller.update(observed(policy), DT, delay=(TP - 1) * DT)
    np.testing.assert_array_equal(second.actions[:-1], first.actions[1:])


# An untrained network's Jacobian leads nowhere; tests/test_guidance.py has the true one's effect.
@pytest.mark.parametrize("mode", ["identity", "repaint"])
def test_the_overlap_is_nearer_to_the_last_plan_than_that_of_a_cold_plan(
    policy: DiffusionPolicy, mode: str
) -> None:
    """An exec horizon of 2 and a delay of 2: actions 2 to 5 of the new plan are in the overlap."""

    def distance(controller: Any) -> float:
        total = 0.0
        for seed in range(5):
            controller.reset(seed)
            first = controller.update(observed(policy, seed), 0.0, 0.2)
            second = controller.update(observed(policy, seed), 0.2, 0.2)
            total += float(np.square(second.actions[2:6] - first.actions[4:8]).sum())
        return total

    guided = RTCController(policy, mode=mode, schedule="ones", num_steps=5, exec_horizon=2)
    assert distance(guided) < 0.7 * distance(ColdController(policy, 5, exec_horizon=2))


@pytest.mark.parametrize("mode", MODES)
def test_it_plans_every_exec_horizon_ticks_at_the_same_number_of_evaluations(
    policy: DiffusionPolicy, mode: str
) -> None:
    controller, nfe = RTCController(policy, mode=mode, num_steps=4, exec_horizon=3), []
    for tick in range(7):
        controller.update(observed(policy), 5.0 + tick * DT, delay=2 * DT)
        nfe.append(controller.last_nfe)
    assert nfe == [4, 0, 0, 4, 0, 0, 4]


def test_a_plan_that_has_run_out_freezes_nothing(policy: DiffusionPolicy) -> None:
    late, fresh = RTCController(policy, num_steps=3), ColdController(policy, num_steps=3)
    late.update(observed(policy, 0), 0.0)
    late._generator.manual_seed(0)
    second = late.update(observed(policy, 1), TP * DT, delay=0.3)
    np.testing.assert_array_equal(second.actions, fresh.update(observed(policy, 1), 0.0).actions)


@pytest.mark.parametrize("mode", MODES)
def test_reset_forgets_everything_and_the_seed_decides_the_noise(
    policy: DiffusionPolicy, mode: str
) -> None:
    controller = RTCController(policy, mode=mode, num_steps=3)

    def run(seed: int) -> Any:
        controller.reset(seed)
        return [controller.update(observed(policy), t * DT, DT).actions for t in range(5)][-1]

    first = run(1)
    np.testing.assert_array_equal(first, run(1))
    assert not np.array_equal(first, run(2))


@pytest.mark.parametrize("parameterization", [Epsilon(), V()])
@pytest.mark.parametrize("mode", MODES)
def test_each_parameterization_can_be_guided(mode: str, parameterization: Any) -> None:
    policy = tiny_policy()
    policy.parameterization = parameterization
    controller = RTCController(policy, mode=mode, num_steps=5)
    chunks = [controller.update(observed(policy), t * DT, DT) for t in range(4)]
    assert np.isfinite(chunks[-1].actions).all()
    low, high = np.array(policy.spec.action.low), np.array(policy.spec.action.high)
    assert np.all((chunks[-1].actions >= low - 1e-6) & (chunks[-1].actions <= high + 1e-6))


def test_a_step_in_inference_mode_takes_the_vector_jacobian_product_of_the_network(
    policy: DiffusionPolicy,
) -> None:
    weights, guidance = overlap_weights(TP, 2, 5, "linear"), VectorJacobian(5.0)
    prior = torch.zeros(1, TP, policy.spec.action.dim)
    with torch.inference_mode():
        batch = {key: torch.from_numpy(x)[None] for key, x in observed(policy).items()}
        state = policy.begin(
            policy.encode(batch),
            num_steps=2,
            start_level=0.5,
            prior=prior,
            guidance=guidance,
            weights=weights,
        )
        guided = policy.step(state)
    x, level, context = state.x.clone(), state.levels[0], state.context.clone()

    def estimate(x: Tensor) -> Tensor:
        out: Tensor = policy.denoiser(x, torch.full((1, 1), level), context)
        return out.clamp(-1.1, 1.1)

    x0, pull, *_ = torch.func.vjp(estimate, x)
    alpha, sigma = policy.schedule.alpha(level), policy.schedule.sigma(level)
    (pulled,) = pull(weights[:, None] * (state.x0 - x0))
    wanted = x0 + sigma * min(5.0, 1 / (alpha * sigma)) * pulled
    torch.testing.assert_close(guided.x0, wanted.clamp(-1.1, 1.1), atol=1e-5, rtol=1e-4)


def test_weights_that_cannot_be_differentiated_are_refused() -> None:
    with torch.inference_mode():
        policy = tiny_policy()
    RTCController(policy, mode="identity")
    with pytest.raises(ValueError, match="outside"):
        RTCController(policy, mode="vjp")


def test_the_jacobian_leaves_no_gradients_behind(policy: DiffusionPolicy) -> None:
    controller = RTCController(policy, mode="vjp", num_steps=2)
    with torch.inference_mode():
        for tick in range(4):
            controller.update(observed(policy), tick * DT, DT)
    assert all(weight.grad is None for weight in policy.parameters())


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"exec_horizon": TP + 1}, "exec_horizon"),
        ({"exec_horizon": 0}, "exec_horizon"),
        ({"mode": "inpaint"}, "repaint"),
        ({"schedule": "cubic"}, "linear"),
        ({"mode": "vjp", "max_weight": 0.0}, "max_weight"),
        ({"num_steps": 0}, "steps"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(
    policy: DiffusionPolicy, options: dict[str, Any], word: str
) -> None:
    with pytest.raises(ValueError, match=word):
        RTCController(policy, **options)


def test_a_delay_that_the_chunk_cannot_bridge_is_refused(policy: DiffusionPolicy) -> None:
    controller = RTCController(policy, exec_horizon=4)
    controller.update(observed(policy), 0.0, delay=(TP - 4) * DT)
    with pytest.raises(ValueError, match="run out of actions") as error:
        controller.update(observed(policy), DT, delay=(TP - 3) * DT)
    assert "\n" not in str(error.value)


def test_guidance_without_a_prior_is_refused(policy: DiffusionPolicy) -> None:
    controller = RTCController(policy)
    context = torch.zeros(1, 1, policy.encoder.context_dim)
    with pytest.raises(ValueError, match="prior"):
        policy.begin(context, num_steps=1, guidance=controller._guidance)


def controls(name: str) -> Any:
    return yaml.safe_load((CONFIGS / f"controller/{name}.yaml").read_text(encoding="utf-8"))


def test_hold_plans_only_when_the_plan_has_run_out(policy: DiffusionPolicy) -> None:
    controller, nfe = build(controls("hold"), policy=policy), []
    for tick in range(2 * TP + 1):
        controller.update(observed(policy), tick * DT)
        nfe.append(controller.last_nfe)
    assert nfe == [10 if tick % TP == 0 else 0 for tick in range(2 * TP + 1)]


def test_naive_ignores_what_is_executed_meanwhile(policy: DiffusionPolicy) -> None:
    waiting, instant = (build(controls("naive"), policy=policy) for _ in range(2))
    for tick in range(5):
        chunk = waiting.update(observed(policy), tick * DT, delay=0.4)
        other = instant.update(observed(policy), tick * DT)
        np.testing.assert_array_equal(chunk.actions, other.actions)
