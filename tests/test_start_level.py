"""Start levels measured on policies whose answers are known in closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from policy.level_grid import GridSettings, LevelFigures, Shift, choose, measure
from policy.moments import Moments
from policy.samplers import DDIM, DDPM
from policy.start_level import (
    Pairs,
    Solver,
    contraction,
    flip_rate,
    gaussian_contraction,
    nearest_mode,
    shifted,
    strangeness,
)
from policy.warm_start import AsIs, ReNoised, Scaled, WarmStart
from tests.toy_policy import SCHEDULE, Gaussian, TwoPoints, toy_policy, toy_spec

M, PRED = 32, 8


def held(context: Tensor) -> Tensor:
    """The whole chunk goes where the state is."""
    return context.expand(-1, PRED, -1)


def gaussian(spread: float) -> Solver:
    return Solver(toy_policy(toy_spec(2, 2), Gaussian(held, spread)))


def pairs(guess: float = 0.7) -> Pairs:
    generator = torch.Generator().manual_seed(0)
    cold = 0.1 * torch.randn(M, 16, PRED, 2, generator=generator)
    return Pairs(torch.zeros(M, 1, 2), torch.full((M, PRED, 2), guess), cold, 1)


@pytest.mark.parametrize("spread", [0.05, 0.3])
@pytest.mark.parametrize("level", [0.1, 0.3, 0.8])
def test_measured_contraction_is_that_of_the_ddpm_chain(spread: float, level: float) -> None:
    solver = replace(gaussian(spread), warm_start=AsIs(), sampler=DDPM())
    left, _ = contraction(solver, pairs(), torch.zeros(M, PRED, 2), level, 20)
    alpha, sigma = SCHEDULE.alpha(level), SCHEDULE.sigma(level)
    wanted = alpha * spread**2 / (alpha**2 * spread**2 + sigma**2)
    assert left.tolist() == pytest.approx([wanted] * 2 * M, rel=0.01)


@pytest.mark.parametrize("spread", [0.1, 0.3])
@pytest.mark.parametrize("level", [0.1, 0.3, 0.8])
def test_measured_contraction_is_that_of_the_probability_flow(spread: float, level: float) -> None:
    solver = replace(gaussian(spread), warm_start=AsIs(), sampler=DDIM())
    left, _ = contraction(solver, pairs(), torch.zeros(M, PRED, 2), level, round(1000 * level))
    wanted = spread / math.hypot(SCHEDULE.alpha(level) * spread, SCHEDULE.sigma(level))
    assert left.tolist() == pytest.approx([wanted] * 2 * M, rel=0.01)


@pytest.mark.parametrize("warm_start", [AsIs(), Scaled(), ReNoised()])
@pytest.mark.parametrize("nfe", [1, 2, 5])
def test_closed_form_holds_for_few_steps_and_every_warm_start(
    warm_start: WarmStart, nfe: int
) -> None:
    solver = replace(gaussian(0.2), warm_start=warm_start)
    for level in (0.1, 0.5, 0.9):
        left, _ = contraction(solver, pairs(), torch.zeros(M, PRED, 2), level, nfe)
        wanted = gaussian_contraction(0.2, level, nfe, SCHEDULE, warm_start)
        assert left.tolist() == pytest.approx([wanted] * 2 * M, rel=0.01)


def test_contraction_falls_with_the_level() -> None:
    solver, zero = gaussian(0.2), torch.zeros(M, PRED, 2)
    left = [float(contraction(solver, pairs(), zero, k / 10, 2)[0].mean()) for k in range(1, 11)]
    assert left == sorted(left, reverse=True)
    assert left[0] > 0.5
    assert left[-1] < 1e-3


@pytest.mark.parametrize("plus", [0.2, 0.01])
def test_flips_cross_one_half_where_the_likelihood_ratio_meets_the_odds(plus: float) -> None:
    """A guess at +1 read at a level says 2 alpha^2 / sigma^2 nats for +1; the policy says -1."""
    solver = Solver(toy_policy(toy_spec(1, 1, discrete=(0,)), TwoPoints(1.0, plus), pred=1))
    count = 4000
    old = torch.ones(count, 1, 1)
    pair = Pairs(torch.zeros(count, 1, 1), old, -torch.ones(count, 4, 1, 1), 1)
    odds = math.log((1 - plus) / plus)
    generator = torch.Generator()

    def flips(level: float) -> float:
        out = solver.warm(pair.context, old, level, 1, generator.manual_seed(0))
        rate = flip_rate(out, pair, (0,))
        assert rate is not None
        return rate

    def nats(level: float) -> float:
        return 2 * (SCHEDULE.alpha(level) / SCHEDULE.sigma(level)) ** 2

    crossing = min((k / 1000 for k in range(1, 1000)), key=lambda k: abs(nats(k) - odds))
    assert flips(crossing - 0.03) < 0.48 < 0.52 < flips(crossing + 0.03)
    assert flips(crossing) == pytest.approx(0.5, abs=0.02)


def test_flips_are_counted_only_where_the_policy_wants_another_action() -> None:
    cold = torch.tensor([1.0, 1.0, -1.0, -1.0]).view(4, 1, 1, 1).expand(4, 4, 1, 1)
    guess = torch.tensor([1.0, -1.0, -1.0, 1.0]).view(4, 1, 1)  # the second and fourth are stale
    pair = Pairs(torch.zeros(4, 1, 1), guess, cold, 1)
    assert flip_rate(torch.tensor([1.0, 1.0, -1.0, 1.0]).view(4, 1, 1), pair, (0,)) == 0.5
    assert flip_rate(guess, pair, ()) is None
    assert flip_rate(guess[::2], Pairs(pair.context[::2], guess[::2], cold[::2], 1), (0,)) is None


def moments(speed: float) -> Moments:
    """Targets that move by `speed` a tick; nine ticks of them."""
    generator = torch.Generator().manual_seed(0)
    now = torch.rand(M, 1, 2, generator=generator) - 0.5
    return Moments(torch.stack([now - speed * k for k in range(9)]), None)


def chosen(speed: float, reaction_ticks: float, spread: float = 0.05) -> list[float]:
    """Levels for one evaluation at exec horizons 1, 2, 4 and 8."""
    tenths = tuple(k / 10 for k in range(1, 11))
    settings = GridSettings(nfes=(1,), levels=tenths, cold_steps=5, reaction_ticks=reaction_ticks)
    return [c.level for c in measure(gaussian(spread), moments(speed), settings).choices]


def test_level_rises_with_the_shift_and_with_the_targets_speed() -> None:
    patient = 1e6  # nothing has to be forgotten: the error alone decides
    levels = [chosen(speed, patient) for speed in (0.0, 0.2, 0.8)]
    assert levels[0] == [levels[0][0]] * 4  # a target at rest needs no more after 8 ticks
    for slow, fast in ((levels[0], levels[1]), (levels[1], levels[2])):
        assert all(a < b for a, b in zip(slow, fast, strict=True))
    for moving in levels[1:]:
        assert moving == sorted(set(moving))


def test_level_rises_with_the_wanted_speed_of_reaction() -> None:
    lazy, quick = (chosen(0.0, ticks, spread=0.3)[0] for ticks in (10.0, 0.5))
    assert lazy < quick


def figures(contractions: list[float], flips: list[float | None]) -> list[LevelFigures]:
    levels = (k / len(flips) for k in range(1, len(flips) + 1))
    found = zip(levels, contractions, flips, strict=True)
    return [LevelFigures(level, left, left, 1.0, flip) for level, left, flip in found]


def test_a_condition_must_hold_at_all_higher_levels_too() -> None:
    shift = Shift(torch.zeros(5), 0.0, 0.1, {1: figures([0.0, 0.9, 0.01, 0.0], [None] * 4)})
    choice = choose(shift, 1, 1, GridSettings(), SCHEDULE)
    assert (choice.level, choice.because) == (0.75, "old plan forgotten")


def test_level_lets_discrete_actions_change() -> None:
    shift = Shift(torch.zeros(5), 0.0, 0.1, {1: figures([0.0] * 4, [0.0, 0.1, 0.4, 0.9])})
    choice = choose(shift, 1, 1, GridSettings(), SCHEDULE)
    assert (choice.level, choice.because) == (1.0, "discrete actions flip")


def test_mode_is_the_one_near_the_guess() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = 0.05 * torch.randn(M, 16, PRED, 2, generator=generator)
    side = torch.where(torch.arange(16) % 4 > 0, 1.0, -1.0).view(1, 16, 1, 1)  # 12 against 4
    for guess in (0.8, -0.8):
        mode = nearest_mode(replace(pairs(guess), cold=noise + side))
        assert mode.two.all()
        assert float(mode.mean.mean()) == pytest.approx(math.copysign(1, guess), abs=0.02)
        assert float(mode.spread.mean()) == pytest.approx(0.05, rel=0.15)
    single = nearest_mode(replace(pairs(), cold=noise))
    assert single.two.float().mean() < 0.05
    torch.testing.assert_close(single.spread, noise.std(1))


def test_samples_of_the_policy_are_not_strange_and_stale_plans_are() -> None:
    pair, groups = pairs(), {"m": [0, 1]}
    fresh = strangeness(pair.cold[:, 0], replace(pair, cold=pair.cold[:, 1:]), groups)
    assert float(fresh.median()) == pytest.approx(1.0, abs=0.1)
    assert strangeness(pair.guess, pair, groups).min() > 3


def test_shift_drops_what_was_executed_and_repeats_the_last_action() -> None:
    plan = torch.arange(4.0).view(1, 4, 1)
    assert shifted(plan, 1).flatten().tolist() == [1, 2, 3, 3]
    assert shifted(plan, 9).flatten().tolist() == [3, 3, 3, 3]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"levels": (0.5,)}, "end with 1"),
        ({"nfes": (0,)}, "above 0"),
        ({"reaction_ticks": 0.0}, "reaction_ticks"),
        ({"samples": 2}, "samples"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        GridSettings(**wrong)  # type: ignore[arg-type]  # one test for all
