"""A perfect prediction of the target gives back the clean actions."""

import pytest
import torch

from policy.parameterization import X0, Epsilon, Parameterization, V
from policy.schedule import CosineSchedule, FlowSchedule, LinearSchedule, Schedule

SCHEDULES = [CosineSchedule(), LinearSchedule(), FlowSchedule()]
PARAMETERIZATIONS = [Epsilon(), X0(), V()]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_the_target_stands_for_x0(schedule: Schedule, parameterization: Parameterization) -> None:
    torch.manual_seed(0)
    x0, eps = torch.randn(2, 6, 4, 3, dtype=torch.float64)
    level = torch.tensor([0.01, 0.2, 0.5, 0.77, 0.9, 0.99], dtype=torch.float64)[:, None, None]
    x = schedule.alpha(level) * x0 + schedule.sigma(level) * eps
    target = parameterization.target(x0, eps, level, schedule)
    torch.testing.assert_close(parameterization.to_x0(target, x, level, schedule), x0)
    one = parameterization.to_x0(target[3], x[3], 0.77, schedule)
    torch.testing.assert_close(one, x0[3])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_pure_noise_gives_finite_actions(
    schedule: Schedule, parameterization: Parameterization
) -> None:
    x, out = torch.randn(2, 5, 4, 3)
    assert parameterization.to_x0(out, x, 1.0, schedule).isfinite().all()
    level = torch.ones(5, 1, 1)
    assert parameterization.to_x0(out, x, level, schedule).isfinite().all()
