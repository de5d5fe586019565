"""Is a task worth anything? Standing still must fail in it, its scripted expert must succeed.

gate_still    zeros for the whole episode
gate_expert   the script as it is; 80 % is what Meta-World itself demands of it
gate_noisy    the script with the noise that demonstrations are collected with
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.results import Row, print_table, success_row, write_results
from data.spec import Obs
from envs.base import EnvFactory, Expert, ExpertAction, data_spec
from envs.collect import demonstrate
from envs.metaworld.expert import MetaWorldExpert
from envs.workers import Executor, SeedPool, SeedWorkers

BARS = {"gate_still": 0.1, "gate_expert": 0.8, "gate_noisy": 0.8}


class Still:
    """Follows `envs.base.Expert` and does nothing."""

    def reset(self, seed: int) -> None:
        """Start an episode."""

    def act(self, obs: Obs, info: dict[str, Any]) -> ExpertAction:
        """No motion, no grip."""
        return ExpertAction(np.zeros(4, np.float32))


@dataclass(frozen=True)
class PlayAll:
    """Job of a worker: seed -> success of each rule."""

    make_env: EnvFactory

    def __call__(self) -> Callable[[int], dict[str, bool]]:
        """Make the environment and the rules once."""
        env = self.make_env(cameras=())
        rules: dict[str, Expert] = {
            "gate_still": Still(),
            "gate_expert": MetaWorldExpert(noise=0.0),
            "gate_noisy": MetaWorldExpert(),
        }

        def job(seed: int) -> dict[str, bool]:
            return {name: demonstrate(env, rule, seed).success for name, rule in rules.items()}

        return job


def run(
    make_env: EnvFactory,
    out: Path,
    episodes: int = 200,
    seed0: int = 0,
    workers: int = 2,
    executor: Executor = SeedWorkers,
) -> list[Row]:
    """`prise bench gates`: measure, print, write results.json."""
    seeds = list(range(seed0, seed0 + episodes))
    env = make_env(cameras=())
    task = data_spec(env).task
    env.close()
    pool: SeedPool[dict[str, bool]] = executor(PlayAll(make_env), workers)
    with pool:
        results = dict(pool.run(iter(seeds)))
    rows = []
    for name, bar in BARS.items():
        successes = [results[seed][name] for seed in seeds]
        rate = sum(successes) / len(successes)
        holds = rate <= bar if name == "gate_still" else rate >= bar
        context: dict[str, str | int | float | bool | None] = {
            "task": task,
            "bar": bar,
            "holds": holds,
        }
        rows.append(success_row(name, successes, context=context))
    write_results(Path(out) / "results.json", "bench gates", rows, seeds)
    print_table(rows)
    return rows
