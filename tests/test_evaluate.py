"""Evaluation: deterministic, ordered by seed, and failures that name their seed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from data.spec import Obs
from envs.base import EnvFactory, Info
from envs.evaluate import evaluate, run_episode
from envs.workers import EpisodeError, SeedWorkers
from tests.tiny_env import TINY_SPEC, Action, TinyAgent, TinyEnv, tiny_env


def agent_that_cannot_be_made() -> TinyAgent:
    raise ValueError("no such checkpoint")


class SilentEnv(TinyEnv):
    def step(self, action: Action) -> tuple[Obs, float, bool, bool, Info]:
        obs, reward, *_ = super().step(action)
        return obs, reward, True, False, {}


def test_an_episode_repeats_exactly_with_its_seed() -> None:
    env, agent = tiny_env()(), TinyAgent()
    first, again = (run_episode(env, agent, 5, record=True) for _ in range(2))
    assert first.success
    assert first.trace is not None
    assert again.trace is not None
    for key, value in first.trace.items():
        np.testing.assert_array_equal(value, again.trace[key])
    assert replace(first, trace=None) == replace(again, trace=None)


def test_a_trace_has_one_row_a_tick_and_each_fast_sample() -> None:
    result = run_episode(tiny_env()(), TinyAgent(), 5, record=True)
    assert result.trace is not None
    T, r = result.ticks, TINY_SPEC.samples_per_tick("wrench")
    shapes = {key: value.shape for key, value in result.trace.items()}
    assert shapes == {
        "rgb": (T, 8, 8, 3),
        "pose": (T, 9),
        "goal": (T, 2),
        "wrench": (T * r, 6),
        "action": (T, 9),
        "object_pose": (T, 4),
    }
    assert result.trace["rgb"].dtype == np.uint8


def test_results_are_ordered_by_seed_and_do_not_depend_on_the_workers() -> None:
    seeds = [9, 2, 4, 7, 1]
    one = evaluate(tiny_env(), TinyAgent, seeds, workers=1, progress=False)
    two = evaluate(tiny_env(), TinyAgent, seeds, workers=2, progress=False)
    assert [r.seed for r in one] == sorted(seeds)
    assert one == two


def test_only_the_first_episodes_keep_their_trace() -> None:
    results = evaluate(tiny_env(), TinyAgent, [4, 1, 2], progress=False, record=1)
    assert [r.seed for r in results if r.trace is not None] == [4]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("kwargs", "word"), [({"raise_on": 3}, "on fire"), ({"die_on": 3}, "")])
def test_a_failing_or_dying_worker_names_its_seed(
    kwargs: dict[str, int], word: str, workers: int
) -> None:
    with pytest.raises(EpisodeError, match=f"seed 3: .*{word}"):
        evaluate(tiny_env(**kwargs), TinyAgent, range(6), workers=workers, progress=False)


def test_an_agent_that_cannot_be_made_says_why() -> None:
    with pytest.raises(EpisodeError, match="no such checkpoint"):
        evaluate(tiny_env(), agent_that_cannot_be_made, [0], progress=False)


def test_an_environment_that_does_not_say_how_it_ended_is_refused() -> None:
    with pytest.raises(ValueError, match="without info"):
        run_episode(SilentEnv(), TinyAgent(), 0)


def test_the_same_seed_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="different"):
        evaluate(tiny_env(), TinyAgent, [1, 1])


def test_an_env_factory_overrides_its_arguments() -> None:
    env = EnvFactory("tests.tiny_env:Tiny-v0", {"raise_on": 1})(raise_on=2)
    assert env.unwrapped._raise_on == 2  # type: ignore[attr-defined]


def uneven() -> Callable[[int], int]:
    def job(seed: int) -> int:
        time.sleep(0.2 if seed == 0 else 0.0)
        return seed**2

    return job


def test_results_in_order_do_not_run_further_ahead_than_allowed() -> None:
    taken: list[int] = []

    def seeds() -> Iterator[int]:
        for seed in range(8):
            taken.append(seed)
            yield seed

    with SeedWorkers(uneven, 2) as pool:
        results = []
        for seed, square in pool.run(seeds(), ahead=3):
            results.append((seed, square))
            assert len(taken) - len(results) <= 3
    assert results == [(seed, seed**2) for seed in range(8)]
