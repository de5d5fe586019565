"""How many steps fit: with a clock that the test moves."""

from __future__ import annotations

import pytest
import torch

from data.spec import Obs
from deploy.controllers.budget import StepBudget
from deploy.controllers.solve import FINISH, STEP, solve
from envs.history import ObsHistory
from policy.diffusion_policy import DiffusionPolicy, SolveState
from tests.tiny_env import tiny_env
from tests.tiny_policy import TINY_HORIZONS, tiny_policy

MS = 1e-3


class Stopwatch:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Stopwatch:
    return Stopwatch()


@pytest.fixture(scope="module")
def policy() -> DiffusionPolicy:
    return tiny_policy()


@pytest.fixture(scope="module")
def obs(policy: DiffusionPolicy) -> Obs:
    history = ObsHistory(policy.spec, TINY_HORIZONS)
    history.push(tiny_env()().reset(seed=0)[0])
    return history.windowed()


def taught(clock: Stopwatch, deadline: float, **parts: float) -> StepBudget:
    """A budget that has seen each of `parts` often."""
    budget = StepBudget(deadline, clock)
    for part, seconds in parts.items():
        for _ in range(20):
            budget.run(part, lambda seconds=seconds: clock.pass_(seconds))  # type: ignore[misc]  # a default binds it
    budget.start()
    return budget


def test_as_many_steps_fit_as_the_time_left_holds(clock: Stopwatch) -> None:
    budget = taught(clock, 10 * MS, step=2 * MS, finish=1 * MS)
    assert budget.count("step", 100, "finish") == 4
    assert budget.count("step", 3, "finish") == 3
    clock.pass_(5 * MS)
    assert budget.count("step", 100, "finish") == 2
    clock.pass_(4 * MS)
    assert budget.count("step", 100, "finish") == 0


def test_a_part_is_allowed_while_it_ends_before_the_deadline(clock: Stopwatch) -> None:
    budget = taught(clock, 10 * MS, step=2 * MS, finish=1 * MS)
    clock.pass_(6.9 * MS)
    assert budget.allows("step", "finish")
    clock.pass_(0.2 * MS)
    assert not budget.allows("step", "finish")


def test_warm_ups_do_not_count_and_slow_steps_are_forgotten(clock: Stopwatch) -> None:
    budget = StepBudget(1.0, clock)
    for seconds in [5.0] * 3 + [0.1]:
        budget.run("step", lambda seconds=seconds: clock.pass_(seconds))  # type: ignore[misc]  # a default binds it
    assert budget.expected("step") == pytest.approx(0.1)
    budget.run("step", lambda: clock.pass_(5.0))
    assert budget.expected("step") > 4
    for _ in range(200):
        budget.run("step", lambda: clock.pass_(0.1))
    assert budget.expected("step") == pytest.approx(0.1)


def slow_steps(
    policy: DiffusionPolicy, clock: Stopwatch, seconds: list[float], patch: pytest.MonkeyPatch
) -> list[tuple[float, ...]]:
    """Each step takes the next of `seconds`, then the last; the levels that steps were made on."""
    levels, step = [], policy.step

    def slow(state: SolveState) -> SolveState:
        levels.append(state.levels)
        clock.pass_(seconds[min(len(levels), len(seconds)) - 1])
        return step(state)

    patch.setattr(policy, "step", slow)
    return levels


def planned(policy: DiffusionPolicy, obs: Obs, budget: StepBudget) -> int:
    begin = {"num_steps": 10, "sampler": None}
    return solve(policy, obs, torch.Generator().manual_seed(0), begin, budget=budget).nfe


def test_a_short_budget_gives_a_coarser_list_of_levels_down_to_0(
    policy: DiffusionPolicy, obs: Obs, clock: Stopwatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = slow_steps(policy, clock, [2 * MS], monkeypatch)
    budget = taught(clock, 9 * MS, **{STEP: 2 * MS, FINISH: 0.5 * MS})
    assert planned(policy, obs, budget) == 4
    assert levels[0] == (1.0, 0.75, 0.5, 0.25, 0.0)


def test_steps_that_are_slower_than_expected_are_cut_short(
    policy: DiffusionPolicy, obs: Obs, clock: Stopwatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = slow_steps(policy, clock, [2 * MS, 5 * MS], monkeypatch)
    budget = taught(clock, 9 * MS, **{STEP: 2 * MS, FINISH: 0.5 * MS})
    assert planned(policy, obs, budget) == 2
    assert len(levels[0]) == 5


def test_one_step_is_made_where_none_fits(
    policy: DiffusionPolicy, obs: Obs, clock: Stopwatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_steps(policy, clock, [2 * MS], monkeypatch)
    budget = taught(clock, 1 * MS, **{STEP: 2 * MS, FINISH: 0.5 * MS})
    assert planned(policy, obs, budget) == 1


def test_a_deadline_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        StepBudget(0.0)
