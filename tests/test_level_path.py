"""Solving with a level per action: what is clean stays, and Gaussian chunks come out right."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from policy import level_path
from policy.denoisers import DiffusionTransformer, UNet1d
from policy.diffusion_policy import DiffusionPolicy
from policy.level_plan import PrefixLevels, rising_ramp
from policy.parameterization import X0, Epsilon, Parameterization, V
from policy.samplers import DDIM, DDPM, DPMSolverPP2M, Sampler
from policy.schedule import CosineSchedule, FlowSchedule, LinearSchedule, Schedule
from tests.gaussian_policy import (
    MEMORY,
    PRED_HORIZON,
    SPREAD,
    covariance,
    gaussian_policy,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def context_of(policy: DiffusionPolicy, size: int) -> Tensor:
    return policy.encode({"pose": torch.zeros(size, 1, 3)})


def noise(size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, PRED_HORIZON, 1, generator=seeded(seed))


def prefix_path(clean: int, steps: int) -> list[level_path.Levels]:
    tail = PRED_HORIZON - clean
    return [(0.0,) * clean + (1 - k / steps,) * tail for k in range(steps + 1)]


@torch.no_grad()
def solved(policy: DiffusionPolicy, x: Tensor, path: Any, **options: Any) -> level_path.PathState:
    state = level_path.begin(policy, context_of(policy, len(x)), x, path, **options)
    while not state.done:
        state = level_path.step(policy, state)
    return state


DENOISERS = {
    "transformer": partial(DiffusionTransformer, width=32, num_layers=1, num_heads=2),
    "unet": partial(UNet1d, down_dims=(16, 32), condition_dim=16),
}


def awake(name: str, **options: Any) -> DiffusionPolicy:
    """With a real denoiser, no weight of which is zero."""
    policy = gaussian_policy(denoiser=DENOISERS[name], **options)
    for parameter in policy.denoiser.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return policy


@pytest.mark.parametrize("name", DENOISERS)
@pytest.mark.parametrize("parameterization", [X0(), V(), Epsilon()])
@pytest.mark.parametrize("schedule", [CosineSchedule(), LinearSchedule(100), FlowSchedule()])
def test_clean_actions_stay_to_the_bit_and_the_others_are_finite(
    name: str, parameterization: Parameterization, schedule: Schedule
) -> None:
    policy = awake(name, parameterization=parameterization, schedule=schedule)
    x = noise(3)
    state = solved(policy, x, prefix_path(3, 4), sampler=DDPM(), generator=seeded())
    assert torch.equal(state.x[:, :3], x[:, :3])
    assert torch.equal(state.x0[:, :3], x[:, :3])
    assert state.x.isfinite().all()
    assert not torch.equal(state.x[:, 3:], x[:, 3:])


@pytest.mark.parametrize("schedule", [CosineSchedule(), LinearSchedule(100), FlowSchedule()])
@pytest.mark.parametrize("parameterization", [X0(), V(), Epsilon()])
def test_at_level_zero_data_and_its_target_give_the_data_back(
    schedule: Schedule, parameterization: Parameterization
) -> None:
    x0, eps = noise(4), noise(4, 1)
    level = torch.zeros(4, PRED_HORIZON, 1)
    x = schedule.alpha(level) * x0 + schedule.sigma(level) * eps
    assert torch.equal(x, x0)
    target = parameterization.target(x0, eps, level, schedule)
    torch.testing.assert_close(parameterization.to_x0(target, x, level, schedule), x0)


@pytest.mark.parametrize("name", DENOISERS)
@pytest.mark.parametrize("sampler", [DDIM(), DDIM(0.7), DDPM()])
def test_one_level_for_all_is_the_ordinary_solve(name: str, sampler: Sampler) -> None:
    policy = awake(name)
    plain = policy.begin(context_of(policy, 3), num_steps=4, sampler=sampler, generator=seeded())
    while not plain.done:
        plain = policy.step(plain)
    generator = seeded()
    x = torch.randn(3, PRED_HORIZON, 1, generator=generator)
    path = [(level,) * PRED_HORIZON for level in plain.levels]
    state = solved(policy, x, path, sampler=sampler, generator=generator)
    torch.testing.assert_close(state.x, plain.x, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(level_path.actions(policy, state), policy.actions(plain))


def test_a_step_is_one_evaluation_leaves_the_earlier_state_and_has_a_chunk() -> None:
    policy = awake("transformer")
    calls = []
    policy.denoiser.register_forward_hook(lambda *_: calls.append(1))
    state = level_path.begin(policy, context_of(policy, 2), noise(2), prefix_path(2, 3))
    assert state.levels == (0.0,) * 2 + (1.0,) * 6
    x = state.x.clone()
    after = level_path.step(policy, state)
    assert torch.equal(state.x, x)
    assert (len(calls), after.nfe, after.done) == (1, 1, False)
    assert level_path.actions(policy, after).shape == (2, PRED_HORIZON, 1)
    last = level_path.step(policy, level_path.step(policy, after))
    assert last.done
    with pytest.raises(ValueError, match="done after 3 steps"):
        level_path.step(policy, last)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ([(1.0,) * 7, (0.0,) * 7], "a row holds 8 levels"),
        ([(1.1,) * 8, (0.0,) * 8], r"levels in \[0, 1\], got \(1.1"),
        ([(0.5,) * 8, (0.6,) * 8], "levels may only fall along a path"),
    ],
)
def test_a_path_that_cannot_be_walked_is_refused(path: Any, message: str) -> None:
    policy = gaussian_policy()
    with pytest.raises(ValueError, match=message):
        level_path.begin(policy, context_of(policy, 1), noise(1), path)


def test_a_gaussian_chunk_goes_on_from_its_prefix_as_the_conditional_says() -> None:
    policy, clean, size = gaussian_policy(), 3, 4000
    x = noise(size)
    x[:, :clean] = 0.4
    state = solved(policy, x, prefix_path(clean, 100), generator=seeded(1))
    tail = state.x[:, clean:, 0]
    # An autoregressive process forgets all but the last action.
    ahead = torch.arange(1, PRED_HORIZON - clean + 1)
    torch.testing.assert_close(tail.mean(0), 0.4 * MEMORY**ahead, atol=0.02, rtol=0)
    spread = SPREAD * (1 - MEMORY ** (2.0 * ahead)).sqrt()
    torch.testing.assert_close(tail.std(0), spread, rtol=0.1, atol=0)


@pytest.mark.parametrize("sampler", [DDIM(), DDPM(), DPMSolverPP2M()])
def test_a_gaussian_chunk_along_a_ramp_is_distributed_as_it_should_be(sampler: Sampler) -> None:
    policy, size, blocks, nfe = gaussian_policy(), 4000, 4, 25
    path = [
        tuple(
            level
            for level in rising_ramp(blocks - k / nfe, 0, blocks, 100)
            for _ in range(PRED_HORIZON // blocks)
        )
        for k in range((2 * blocks - 1) * nfe + 1)
    ]
    assert path[-1] == (0.0,) * PRED_HORIZON
    state = solved(policy, noise(size), path, sampler=sampler, generator=seeded(1))
    found = torch.cov(state.x[..., 0].double().T)
    torch.testing.assert_close(found, covariance(), atol=0.15 * SPREAD**2, rtol=0)


@pytest.mark.parametrize("schedule", [CosineSchedule(), FlowSchedule()])
def test_raising_the_level_is_the_forward_process(schedule: Schedule) -> None:
    size = 100_000
    x0 = 0.5 * torch.ones(size, 3, 1)
    now, wanted = (0.2, 0.0, 0.7), (0.6, 0.3, 0.7)
    level = torch.tensor(now)[:, None]
    eps = torch.randn(size, 3, 1, generator=seeded())
    x = schedule.alpha(level) * x0 + schedule.sigma(level) * eps
    raised = level_path.raise_levels(x, now, wanted, schedule, seeded(1))
    for index, level_after in enumerate(wanted):
        assert raised[:, index].mean().item() == pytest.approx(
            0.5 * schedule.alpha(level_after), abs=0.01
        )
        assert raised[:, index].std().item() == pytest.approx(schedule.sigma(level_after), abs=0.01)
    assert torch.equal(raised[:, 2], x[:, 2])


@pytest.mark.slow
def test_a_policy_trained_with_prefixes_learns_to_go_on_from_them() -> None:
    # Each chunk stands still somewhere; only the prefix says where.
    denoiser = partial(DiffusionTransformer, width=32, num_layers=2, num_heads=2)
    policy = gaussian_policy(denoiser=denoiser, levels=PrefixLevels(4), noise_samples=4)
    policy.requires_grad_(True).train()
    optimizer, draws = torch.optim.Adam(policy.parameters(), 3e-3), seeded()
    for _ in range(300):
        place = torch.rand(32, 1, 1, generator=draws) * 2 - 1
        data = {
            "obs": {"pose": torch.zeros(32, 1, 3)},
            "action": place.expand(-1, PRED_HORIZON, -1),
            "valid": torch.ones(32, PRED_HORIZON, dtype=torch.bool),
        }
        optimizer.zero_grad()
        policy.loss(data, draws).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    policy.eval()
    for clean in (1, 2, 3, 4):  # odd ones end within a token of two actions
        x = noise(64)
        x[:, :clean] = torch.linspace(-0.8, 0.8, 64)[:, None, None]
        state = solved(policy, x, prefix_path(clean, 10), generator=seeded())
        error = state.x[:, clean:] - x[:, :1]
        assert error.square().mean().sqrt() < 0.15, clean
