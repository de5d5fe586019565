"""Guidance on correlated Gaussians: denoiser and conditional means are known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from policy.guidance import (
    DECAYS,
    MODES,
    Guidance,
    Identity,
    Known,
    Repaint,
    VectorJacobian,
    named_guidance,
    overlap_weights,
)
from policy.samplers.base import level_values
from policy.samplers.ddim import DDIM
from policy.schedule import CosineSchedule, FlowSchedule, Schedule

HORIZON, FROZEN, DRAWS = 16, 4, 512
TIMES = torch.arange(HORIZON, dtype=torch.float64)
COVARIANCE = torch.exp(-((TIMES[:, None] - TIMES).abs()) / 8)  # unit variance, smooth in time
PREFIX = torch.full((FROZEN, 1), 1.2, dtype=torch.float64)
SCHEDULES: dict[str, Schedule] = {"cosine": CosineSchedule(), "flow": FlowSchedule()}


def denoise(x: Tensor, level: float, schedule: Schedule) -> Tensor:
    """E[x0 | x] of chunks (B, Tp, A) from N(0, COVARIANCE) in each dimension."""
    alpha, sigma = schedule.alpha(level), schedule.sigma(level)
    noisy = alpha**2 * COVARIANCE + sigma**2 * torch.eye(HORIZON, dtype=x.dtype)
    gain: Tensor = torch.linalg.solve(noisy, alpha * COVARIANCE).mT
    return gain @ x


def sample(
    guidance: Guidance | None,
    weights: Tensor,
    target: Tensor,
    num_steps: int = 20,
    schedule: Schedule = SCHEDULES["cosine"],
) -> Tensor:
    """Chunks (DRAWS, Tp, 1)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(DRAWS, HORIZON, 1, generator=generator, dtype=torch.float64)
    x0, levels = x, level_values(num_steps, 1.0, schedule.num_levels)
    for level, level_next in pairwise(levels):

        def estimate(x: Tensor, level: float = level) -> Tensor:
            return denoise(x, level, schedule)

        if guidance is None:
            x0 = estimate(x)
        else:
            known = Known(guidance, target, weights.to(x)[:, None])
            x, x0 = guidance(estimate, x, known, level, schedule, generator)
        x = DDIM().step(x, x0, level, level_next, schedule)
    return x0


def frozen_target() -> Tensor:
    target = torch.zeros(1, HORIZON, 1, dtype=torch.float64)
    target[:, :FROZEN] = PREFIX
    return target


def conditional_mean() -> Tensor:
    """Of the actions after the prefix, given the prefix (Tp - FROZEN, 1)."""
    gain: Tensor = torch.linalg.solve(COVARIANCE[:FROZEN, :FROZEN], COVARIANCE[:FROZEN, FROZEN:])
    mean: Tensor = gain.mT @ PREFIX
    return mean


def errors(guidance: Guidance | None, **options: Any) -> tuple[float, float]:
    """RMS of the prefix' error, and of the postfix' mean against the conditional one."""
    weights = overlap_weights(HORIZON, FROZEN, HORIZON, "zeros")
    chunks = sample(guidance, weights, frozen_target(), **options)
    prefix = (chunks[:, :FROZEN] - PREFIX).square().mean().sqrt().item()
    mean = chunks[:, FROZEN:].mean(0)
    return prefix, (mean - conditional_mean()).square().mean().sqrt().item()


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("num_steps", [5, 20])
@pytest.mark.parametrize("mode", MODES)
def test_the_prefix_comes_out_as_it_was_given(mode: str, num_steps: int, schedule: str) -> None:
    options = {"num_steps": num_steps, "schedule": SCHEDULES[schedule]}
    unguided, _ = errors(None, **options)
    guided, _ = errors(named_guidance(mode), **options)
    assert unguided > 1.3
    assert guided < unguided / 14


# Distance of the postfix' mean from the conditional one, as a part of what it is without guidance.
# Only the Jacobian carries the prefix to the postfix; the others leave that to later evaluations.
@pytest.mark.parametrize(("mode", "left"), [("vjp", 0.25), ("identity", 0.76), ("repaint", 0.84)])
@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("num_steps", [5, 20])
def test_the_postfix_follows_the_conditional_mean(
    mode: str, left: float, schedule: str, num_steps: int
) -> None:
    options = {"num_steps": num_steps, "schedule": SCHEDULES[schedule]}
    _, unguided = errors(None, **options)
    _, guided = errors(named_guidance(mode), **options)
    assert guided < left * unguided


def test_the_true_jacobian_is_exact_where_the_network_is_that_of_the_prior() -> None:
    """Independent actions: one step from any level gives the target, as 1 / r^2 is then exact."""
    target = torch.randn(1, HORIZON, 1, dtype=torch.float64)
    x = torch.randn(2, HORIZON, 1, dtype=torch.float64)
    known = Known(VectorJacobian(1e9), target, torch.ones(HORIZON, 1, dtype=torch.float64))
    for schedule in SCHEDULES.values():
        for level in (0.1, 0.5, 0.9):
            alpha, sigma = schedule.alpha(level), schedule.sigma(level)

            def estimate(x: Tensor, gain: float = alpha / (alpha**2 + sigma**2)) -> Tensor:
                return gain * x

            _, x0 = known.guidance(estimate, x, known, level, schedule)
            torch.testing.assert_close(x0, target.expand_as(x0))


@pytest.mark.parametrize(
    ("guidance", "tolerance"), [(Repaint(), 1e-9), (Identity(1e9), 1e-9), (VectorJacobian(), 0.1)]
)
def test_a_prefix_of_the_whole_chunk_returns_it(guidance: Guidance, tolerance: float) -> None:
    factor = torch.linalg.cholesky(COVARIANCE)
    noise = torch.randn(HORIZON, 1, generator=torch.Generator().manual_seed(1), dtype=TIMES.dtype)
    target = (factor @ noise)[None]
    chunks = sample(guidance, torch.ones(HORIZON), target, num_steps=5)
    assert (chunks - target).square().mean().sqrt() < tolerance


def test_without_weights_guidance_changes_nothing() -> None:
    target, weights = frozen_target(), torch.zeros(HORIZON)
    plain = sample(None, weights, target, num_steps=3)
    for mode in MODES:
        torch.testing.assert_close(sample(named_guidance(mode), weights, target, 3), plain)


@pytest.mark.parametrize("decay", sorted(DECAYS))
def test_weights_freeze_the_prefix_fall_over_the_overlap_and_end(decay: str) -> None:
    weights = overlap_weights(horizon=10, frozen=2, end=7, decay=decay)
    assert weights.shape == (10,)
    assert weights[:2].tolist() == [1, 1]
    assert weights[7:].tolist() == [0, 0, 0]
    assert bool((weights.diff() <= 0).all())
    assert bool((weights[2:7] < 1).all()) != (decay == "ones")


def test_linear_weights_are_those_of_the_paper() -> None:
    horizon, delay, executed = 8, 2, 3
    weights = overlap_weights(horizon, delay, horizon - executed, "linear")
    for index in range(delay, horizon - executed):
        wanted = (horizon - executed - index) / (horizon - executed - delay + 1)
        assert weights[index].item() == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: named_guidance("jacobian"), "repaint"),
        (lambda: named_guidance("vjp", max_weight=0.0), "max_weight"),
        (lambda: Identity(-1.0), "max_weight"),
        (lambda: overlap_weights(8, 0, 8, "cubic"), "linear"),
        (lambda: overlap_weights(8, 5, 4, "exp"), "frozen"),
    ],
)
def test_what_cannot_work_is_refused(make: Callable[[], object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        make()
