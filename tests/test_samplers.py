"""Sampling schemes against diffusers, and against the exact denoiser of a small dataset."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from policy.parameterization import X0, Epsilon, Parameterization, V
from policy.samplers import DDIM, DDPM, DPMSolverPP2M, Evaluation, Sampler, level_list
from policy.samplers.base import posterior_variance
from policy.schedule import CosineSchedule, FlowSchedule, LinearSchedule, Schedule

PREDICTIONS: list[tuple[Parameterization, str]] = [
    (Epsilon(), "epsilon"),
    (X0(), "sample"),
    (V(), "v_prediction"),
]
SCHEDULES: list[tuple[Schedule, str]] = [
    (CosineSchedule(100), "squaredcos_cap_v2"),
    (LinearSchedule(100), "linear"),
]


def reference(kind: Any, schedule: Schedule, name: str, prediction: str, **options: Any) -> Any:
    """A diffusers scheduler whose tables are ours in float64: its own are rounded to float32."""
    grid = schedule.num_levels
    scheduler = kind(grid, beta_schedule=name, prediction_type=prediction, **options)
    signal = schedule.alpha(torch.arange(grid + 1, dtype=torch.float64) / grid) ** 2
    scheduler.alphas_cumprod = signal[1:]
    scheduler.alphas = signal[1:] / signal[:-1]
    scheduler.betas = 1 - scheduler.alphas
    if hasattr(scheduler, "one"):
        scheduler.one = torch.ones((), dtype=torch.float64)
    if hasattr(scheduler, "final_alpha_cumprod"):
        scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    return scheduler


def draw(seed: int) -> tuple[Tensor, Tensor]:
    x, out = torch.randn(2, 2, 4, 3, dtype=torch.float64, generator=torch.manual_seed(seed))
    return x, out


@pytest.mark.parametrize(("schedule", "name"), SCHEDULES)
@pytest.mark.parametrize(("parameterization", "prediction"), PREDICTIONS)
def test_ddpm_equals_diffusers_on_neighbouring_levels(
    schedule: Schedule, name: str, parameterization: Parameterization, prediction: str
) -> None:
    oracle = reference(
        DDPMScheduler, schedule, name, prediction, clip_sample=False, variance_type="fixed_small"
    )
    grid = schedule.num_levels
    for tick in (1, 2, 30, 99, 100):  # diffusers' timestep is tick - 1
        x, out = draw(tick)
        noise = torch.Generator().manual_seed(7)
        expected = oracle.step(out, tick - 1, x, generator=noise).prev_sample
        level, level_next = tick / grid, (tick - 1) / grid
        x0 = parameterization.to_x0(out, x, level, schedule)
        noise = torch.Generator().manual_seed(7)
        actual = DDPM().step(x, x0, level, level_next, schedule, generator=noise)
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize(("schedule", "name"), SCHEDULES)
@pytest.mark.parametrize(("parameterization", "prediction"), PREDICTIONS)
def test_ddim_equals_diffusers_on_jumps(
    schedule: Schedule, name: str, parameterization: Parameterization, prediction: str, eta: float
) -> None:
    oracle = reference(
        DDIMScheduler, schedule, name, prediction, clip_sample=False, timestep_spacing="trailing"
    )
    oracle.set_timesteps(10)  # 99, 89, ..., 9: levels 1.0, 0.9, ..., 0.1
    levels = level_list(10, schedule=schedule).tolist()
    for timestep, level, level_next in zip(oracle.timesteps, levels, levels[1:], strict=False):
        assert timestep + 1 == round(level * schedule.num_levels)
        x, out = draw(int(timestep))
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
        expected = oracle.step(out, timestep, x, eta=eta, variance_noise=noise).prev_sample
        x0 = parameterization.to_x0(out, x, level, schedule)
        actual = DDIM(eta).step(
            x, x0, level, level_next, schedule, generator=torch.Generator().manual_seed(3)
        )
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("num_steps", [4, 10, 20])
@pytest.mark.parametrize(("schedule", "name"), SCHEDULES)
@pytest.mark.parametrize(("parameterization", "prediction"), PREDICTIONS)
def test_dpmpp_equals_diffusers_over_a_whole_solve(
    schedule: Schedule,
    name: str,
    parameterization: Parameterization,
    prediction: str,
    num_steps: int,
) -> None:
    oracle = reference(
        DPMSolverMultistepScheduler, schedule, name, prediction, timestep_spacing="trailing"
    )
    oracle.set_timesteps(num_steps)
    levels = level_list(num_steps, schedule=schedule)
    oracle.sigmas = schedule.sigma(levels) / schedule.alpha(levels)  # float32 otherwise
    ticks = levels.tolist()
    expected, _ = draw(0)
    actual, history = expected, None
    for timestep, level, level_next in zip(oracle.timesteps, ticks, ticks[1:], strict=False):
        _, out = draw(int(timestep))
        expected = oracle.step(out, timestep, expected).prev_sample
        x0 = parameterization.to_x0(out, actual, level, schedule)
        actual = DPMSolverPP2M().step(actual, x0, level, level_next, schedule, history)
        history = Evaluation(x0, level)
        # diffusers rounds x to float32 in every step, so x is compared relative to its size.
        scale = expected.abs().max().item()
        torch.testing.assert_close(actual / scale, expected / scale, rtol=0, atol=1e-6)
        expected = actual


POINTS = torch.tensor([[-0.9, -0.8], [-0.7, 0.9], [0.1, 0.0], [0.9, -0.6], [0.8, 0.8]]).double()
WEIGHTS = torch.tensor([0.1, 0.3, 0.2, 0.15, 0.25]).double()


def exact_x0(x: Tensor, level: float, schedule: Schedule) -> Tensor:
    """E[x0 | x] for data that are POINTS with WEIGHTS."""
    distance = (x - schedule.alpha(level) * POINTS).square().sum(-1)  # (B, points)
    logits = WEIGHTS.log() - distance / (2 * schedule.sigma(level) ** 2)
    return (logits.softmax(-1) @ POINTS)[:, None]


@pytest.mark.parametrize("schedule", [CosineSchedule(100), LinearSchedule(1000), FlowSchedule(100)])
@pytest.mark.parametrize("sampler", [DDPM(), DDIM(), DDIM(0.5), DPMSolverPP2M()])
def test_the_exact_denoiser_samples_the_data_with_the_right_frequencies(
    sampler: Sampler, schedule: Schedule
) -> None:
    count, noise = 4000, torch.Generator().manual_seed(0)
    x = torch.randn(count, 1, 2, dtype=torch.float64, generator=noise)
    levels, history = level_list(100, schedule=schedule).tolist(), None
    for level, level_next in pairwise(levels):
        x0 = exact_x0(x, level, schedule)
        x = sampler.step(x, x0, level, level_next, schedule, history, noise)
        history = Evaluation(x0, level)
    distance = torch.cdist(x[:, 0], POINTS)
    nearest = distance.min(-1)
    assert (nearest.values < 0.02).double().mean() > 0.99
    frequency = torch.bincount(nearest.indices, minlength=len(POINTS)) / count
    torch.testing.assert_close(frequency.double(), WEIGHTS, atol=0.03, rtol=0)


@pytest.mark.parametrize("schedule", [CosineSchedule(100), LinearSchedule(1000), FlowSchedule(100)])
@pytest.mark.parametrize("sampler", [DDPM(), DDIM(), DDIM(1.0), DPMSolverPP2M()])
def test_the_last_step_returns_the_estimate(sampler: Sampler, schedule: Schedule) -> None:
    x, x0 = draw(0)
    history = Evaluation(x, 1.0)
    for level in (0.01, 0.3, 1.0):
        result = sampler.step(x, x0, level, 0.0, schedule, history if level < 1 else None)
        torch.testing.assert_close(result, x0)


@pytest.mark.parametrize("schedule", [CosineSchedule(100), FlowSchedule(100)])
def test_ddim_with_full_eta_is_ddpm(schedule: Schedule) -> None:
    x, x0 = draw(0)
    for level, level_next in ((1.0, 0.7), (0.5, 0.1), (0.3, 0.0)):
        a, b = (
            sampler.step(
                x, x0, level, level_next, schedule, generator=torch.Generator().manual_seed(1)
            )
            for sampler in (DDIM(eta=1.0), DDPM())
        )
        torch.testing.assert_close(a, b)


def test_posterior_variance_is_never_more_than_the_next_levels() -> None:
    for schedule in (CosineSchedule(100), LinearSchedule(1000), FlowSchedule(100)):
        for level, level_next in ((1.0, 0.99), (1.0, 0.5), (0.5, 0.2), (0.01, 0.0)):
            variance = posterior_variance(level, level_next, schedule)
            assert 0 <= variance <= schedule.sigma(level_next) ** 2
            assert math.isfinite(variance)


def test_levels_fall_from_start_to_zero_on_the_grid() -> None:
    levels = level_list(3, 0.3, schedule=CosineSchedule(100))
    assert levels.tolist() == [0.3, 0.2, 0.1, 0.0]
    assert level_list(100, schedule=CosineSchedule(100)).diff().max() < 0
    on_grid = level_list(7, 1.0, schedule=CosineSchedule(100)) * 100
    torch.testing.assert_close(on_grid, on_grid.round())


@pytest.mark.parametrize(("steps", "start"), [(0, 1.0), (31, 0.3), (1, 0.0), (1, 1.1), (1, 0.001)])
def test_impossible_level_lists_are_refused(steps: int, start: float) -> None:
    with pytest.raises(ValueError, match="must be in"):
        level_list(steps, start, schedule=CosineSchedule(100))
