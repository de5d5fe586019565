"""Schedules: equal to the reference on the grid, consistent between floats and tensors."""

from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler

from policy.schedule import CosineSchedule, FlowSchedule, LinearSchedule, Schedule

SCHEDULES = [CosineSchedule(100), CosineSchedule(7), LinearSchedule(1000), FlowSchedule(100)]


@pytest.mark.parametrize(
    ("schedule", "name"),
    [
        (CosineSchedule(100), "squaredcos_cap_v2"),
        (CosineSchedule(50), "squaredcos_cap_v2"),
        (LinearSchedule(1000), "linear"),
        (LinearSchedule(100), "linear"),
    ],
)
def test_grid_levels_lie_on_diffusers_alphas_cumprod(schedule: Schedule, name: str) -> None:
    grid = schedule.num_levels
    scheduler: Any = DDPMScheduler
    reference = scheduler(grid, beta_schedule=name).alphas_cumprod.double()
    level = torch.arange(1, grid + 1, dtype=torch.float64) / grid
    # diffusers accumulates in float32.
    torch.testing.assert_close(schedule.alpha(level) ** 2, reference, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(schedule.sigma(level) ** 2, 1 - reference, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_level_zero_is_data_and_noise_only_grows(schedule: Schedule) -> None:
    assert schedule.alpha(0.0) == 1
    assert schedule.sigma(0.0) == 0
    level = torch.linspace(0, 1, 333, dtype=torch.float64)
    assert (schedule.alpha(level).diff() < 0).all()
    assert (schedule.sigma(level).diff() > 0).all()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_floats_and_tensors_agree_on_and_off_the_grid(schedule: Schedule) -> None:
    for level in (0.0, 0.005, 0.3, 0.777, 1.0):
        tensor = torch.full((2, 3, 1), level, dtype=torch.float64)
        alpha, sigma = schedule.alpha(tensor), schedule.sigma(tensor)
        assert alpha.shape == tensor.shape
        torch.testing.assert_close(alpha, torch.full_like(alpha, schedule.alpha(level)))
        torch.testing.assert_close(sigma, torch.full_like(sigma, schedule.sigma(level)))


@pytest.mark.parametrize("schedule", [CosineSchedule(100), LinearSchedule(1000)])
def test_variance_is_preserved_between_grid_points(schedule: Schedule) -> None:
    level = torch.rand(100, dtype=torch.float64)
    power = schedule.alpha(level) ** 2 + schedule.sigma(level) ** 2
    torch.testing.assert_close(power, torch.ones_like(power))


def test_float32_levels_keep_their_type_and_the_precision_at_the_noisy_end() -> None:
    schedule = CosineSchedule(100)
    alpha = schedule.alpha(torch.ones(1))
    assert alpha.dtype == torch.float32
    assert alpha.item() == pytest.approx(schedule.alpha(1.0), rel=1e-6)


def test_an_empty_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        CosineSchedule(0)
