"""First iterates from a prior."""

import torch

from policy.schedule import CosineSchedule, FlowSchedule
from policy.warm_start import AsIs, ReNoised, Scaled

PRIOR = torch.linspace(-1, 1, 24).reshape(2, 4, 3)


def test_as_is_hands_the_prior_over() -> None:
    assert torch.equal(AsIs()(PRIOR, 0.3, CosineSchedule(), None), PRIOR)


def test_scaled_is_the_mean_of_renoised() -> None:
    schedule = CosineSchedule()
    prior = PRIOR[:1].expand(20_000, 4, 3)
    draws = ReNoised()(prior, 0.3, schedule, torch.Generator().manual_seed(0))
    mean = Scaled()(PRIOR[:1], 0.3, schedule, None)
    torch.testing.assert_close(draws.mean(0, keepdim=True), mean, atol=0.02, rtol=0)
    assert abs(draws.std(0).mean() - schedule.sigma(0.3)) < 0.005


def test_renoised_repeats_with_the_same_seed_only() -> None:
    def draw(seed: int) -> torch.Tensor:
        return ReNoised()(PRIOR, 0.5, CosineSchedule(), torch.Generator().manual_seed(seed))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_renoised_at_full_noise_forgets_the_prior() -> None:
    a = ReNoised()(PRIOR, 1.0, FlowSchedule(), torch.Generator().manual_seed(0))
    b = ReNoised()(-PRIOR, 1.0, FlowSchedule(), torch.Generator().manual_seed(0))
    assert torch.equal(a, b)
