"""Levels per action in training: what is drawn, what the loss sees, and that off is as before."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data.build import build
from policy.checkpoint import load_policy, save_checkpoint
from policy.denoisers import DiffusionTransformer
from policy.diffusion_policy import DiffusionPolicy
from policy.level_plan import ConstantLevels, PrefixLevels, RisingLevels, rising_ramp
from policy.parameterization import X0, Epsilon, Parameterization, V
from policy.samplers.base import noise_like
from tests.gaussian_policy import PRED_HORIZON, gaussian_policy
from tests.tiny_policy import TINY_CONFIG, TINY_HORIZONS, tiny_policy

GRID = 100


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(size: int = 6) -> dict[str, Any]:
    noise = seeded(5)
    action = torch.rand(size, PRED_HORIZON, 1, generator=noise) - 0.5
    valid = torch.ones(size, PRED_HORIZON, dtype=torch.bool)
    valid[0, 5:] = False
    return {"obs": {"pose": torch.zeros(size, 1, 3)}, "action": action, "valid": valid}


def drawn(plan: PrefixLevels | RisingLevels, count: int, seed: int = 0) -> Tensor:
    level = 1 - torch.rand(count, 1, generator=seeded(seed))
    return plan.draw(level, PRED_HORIZON, GRID, seeded(seed + 1))


class Listening(nn.Module):
    """Says `value`, whatever it sees, and remembers what that was."""

    def __init__(self, value: float = 0.0, **sizes: int) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor, level: Tensor, context: Tensor) -> Tensor:
        self.x, self.level = x, level
        return torch.full_like(x, self.value)


def loss_with_one_level(
    policy: DiffusionPolicy, data: Mapping[str, Any], noise: torch.Generator
) -> Tensor:
    """The loss as it was before actions could have levels of their own."""
    context = policy.encode(data["obs"]).repeat(policy.noise_samples, 1, 1)
    x0 = policy.normalizer.normalize("action", data["action"]).repeat(policy.noise_samples, 1, 1)
    level = policy._draw_levels(len(x0), noise).to(x0)
    eps = noise_like(x0, noise)
    broadcast = level[..., None]
    x = policy.schedule.alpha(broadcast) * x0 + policy.schedule.sigma(broadcast) * eps
    target = policy.parameterization.target(x0, eps, broadcast, policy.schedule)
    error = (policy.denoiser(x, level, context) - target).square().mean(-1)
    valid = data["valid"].to(x0).repeat(policy.noise_samples, 1)
    mean: Tensor = (error * valid).sum() / valid.sum().clamp(min=1)
    return mean


@pytest.mark.parametrize("options", [{}, {"levels": ConstantLevels()}])
def test_without_the_option_loss_and_random_draws_are_the_same_to_the_bit(
    options: dict[str, Any],
) -> None:
    denoiser = partial(DiffusionTransformer, width=32, num_layers=1, num_heads=2)
    policy, data = gaussian_policy(denoiser=denoiser, noise_samples=3, **options), batch()
    before, after = seeded(1), seeded(1)
    expected = loss_with_one_level(policy, data, before)
    assert torch.equal(policy.loss(data, after), expected)
    assert torch.equal(before.get_state(), after.get_state())


def test_the_option_changes_no_weights_at_birth() -> None:
    plain, prefix = gaussian_policy(), gaussian_policy(levels=PrefixLevels())
    assert plain.state_dict().keys() == prefix.state_dict().keys()
    for one, two in zip(plain.parameters(), prefix.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_prefix_is_clean_and_each_length_up_to_the_longest_is_as_frequent() -> None:
    levels = drawn(PrefixLevels(4), 5000)
    clean = (levels == 0).sum(1)
    assert torch.equal(levels == 0, torch.arange(PRED_HORIZON) < clean[:, None])
    frequency = torch.bincount(clean) / 5000
    torch.testing.assert_close(frequency, torch.full((5,), 0.2), atol=0.03, rtol=0)
    tail = levels[:, 4:]
    assert torch.equal(tail, tail[:, :1].expand_as(tail))


@pytest.mark.parametrize("plan", [RisingLevels(2), RisingLevels(2, max_delay=4), RisingLevels(1)])
def test_levels_rise_in_blocks_or_are_one_level_in_a_fifth(plan: RisingLevels) -> None:
    levels = drawn(plan, 5000)
    assert (levels.diff(dim=1) >= 0).all()
    blocks = levels.reshape(len(levels), -1, plan.block)
    assert (blocks == blocks[..., :1]).all()
    on_grid = levels * GRID
    is_one = (levels == levels[:, :1]).all(1)
    on_grid = on_grid[~is_one]
    torch.testing.assert_close(on_grid, on_grid.round(), atol=1e-4, rtol=0)
    # Noise alone is the ramp's upper end, a little more than a fifth have one level.
    assert is_one.float().mean() == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("plan", [RisingLevels(2, max_delay=4), RisingLevels(1), RisingLevels(4)])
def test_every_ramp_met_in_acting_was_trained(plan: RisingLevels) -> None:
    blocks = PRED_HORIZON // plan.block
    trained = drawn(plan, 20_000)[:, :: plan.block]
    for frozen in range(plan.max_frozen + 1):
        for tenths in range(1, 10 * (blocks - frozen) + 1):
            ramp = torch.tensor(rising_ramp(tenths / 10, frozen, blocks, GRID))
            same_frozen = trained[((trained == 0).sum(1) == frozen)]
            distance = (same_frozen - ramp).abs().amax(1).min()
            assert distance < 0.025, (frozen, tenths)


def test_a_ramp_goes_from_noise_alone_to_where_its_first_block_is_clean() -> None:
    assert rising_ramp(4, 0, 4, GRID) == (1, 1, 1, 1)
    assert rising_ramp(1, 0, 4, GRID) == (0.25, 0.5, 0.75, 1)
    assert rising_ramp(0, 0, 4, GRID) == (0, 0.25, 0.5, 0.75)
    assert rising_ramp(1, 2, 4, GRID) == (0, 0, 0.5, 1)


@pytest.mark.parametrize("parameterization", [X0(), V(), Epsilon()])
@pytest.mark.parametrize("plan", [PrefixLevels(4), RisingLevels(2, max_delay=4)])
def test_clean_actions_are_seen_as_they_are_and_do_not_count(
    plan: PrefixLevels | RisingLevels, parameterization: Parameterization
) -> None:
    policy = gaussian_policy(denoiser=Listening, levels=plan, parameterization=parameterization)
    data = batch(64)
    loss = policy.loss(data, seeded())
    denoiser = policy.denoiser
    assert isinstance(denoiser, Listening)
    clean = denoiser.level == 0
    x0 = policy.normalizer.normalize("action", data["action"])
    assert clean.any()
    assert torch.equal(denoiser.x[clean], x0[clean])
    assert loss.isfinite()
    data["valid"] &= ~clean  # what the loss leaves out anyway
    assert torch.equal(policy.loss(data, seeded()), loss)


def test_a_chunk_of_which_only_clean_actions_are_valid_adds_nothing() -> None:
    policy, data = gaussian_policy(denoiser=Listening, levels=PrefixLevels(7)), batch(1)
    data["valid"][:, 1:] = False
    losses = [float(policy.loss(data, seeded(seed))) for seed in range(30)]
    assert 0.0 in losses
    assert max(losses) > 0


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (PrefixLevels(8), "max_delay must be in 0..7 ticks with pred_horizon 8, got 8"),
        (PrefixLevels(-1), "max_delay must be in 0..7 ticks"),
        (RisingLevels(3), "block 3 must divide pred_horizon 8"),
        (RisingLevels(0), "block 0 must divide pred_horizon 8"),
        (RisingLevels(4, max_delay=5), "0..4 ticks with pred_horizon 8 in blocks of 4, got 5"),
    ],
)
def test_levels_that_a_chunk_cannot_have_are_refused(
    plan: PrefixLevels | RisingLevels, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        gaussian_policy(levels=plan)


def test_shares_lie_between_zero_and_one() -> None:
    with pytest.raises(ValueError, match=r"levels.constant is a share in \[0, 1\], got 1.5"):
        RisingLevels(2, constant=1.5)


def test_a_checkpoint_knows_what_it_was_trained_for(tmp_path: Path) -> None:
    plan = {"_target_": "policy.level_plan.RisingLevels", "block": 4, "max_delay": 3}
    policy = tiny_policy()
    config = TINY_CONFIG | {"levels": plan}
    save_checkpoint(tmp_path / "rising", config, policy.spec, TINY_HORIZONS, policy.state_dict())
    assert load_policy(tmp_path / "rising").levels == RisingLevels(4, max_delay=3)
    save_checkpoint(tmp_path / "old", TINY_CONFIG, policy.spec, TINY_HORIZONS, policy.state_dict())
    assert load_policy(tmp_path / "old").levels == ConstantLevels()
    assert build(plan) == RisingLevels(4, max_delay=3)
