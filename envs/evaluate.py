"""Closed-loop episodes of an agent, one process per worker, paired by seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data.spec import Obs
from envs.base import Info, data_spec
from envs.workers import Executor, SeedWorkers

Env = gymnasium.Env[Any, Any]
Trace = dict[str, NDArray[Any]]


class Agent(Protocol):
    """Acts once a tick; everything random in it comes from the seed."""

    def reset(self, seed: int) -> None:
        """Start an episode."""
        ...

    def act(self, raw_obs: Obs, stamp: float) -> NDArray[np.float32]:
        """Action (A,) for the raw observation made at `stamp` [s] since the episode's start."""
        ...

    def stats(self) -> dict[str, list[float]]:
        """What each tick since `reset` cost: tick_s, encode_s, solve_s, nfe, is_plan."""
        ...


@dataclass(frozen=True)
class EpisodeResult:
    """How one episode went; `trace` holds one row a tick (fast modalities: one a sample)."""

    seed: int
    success: bool
    outcome: str
    metrics: dict[str, float]
    ticks: int
    agent_stats: dict[str, list[float]] = field(default_factory=dict)
    trace: Trace | None = None


def run_episode(env: Env, agent: Agent, seed: int, record: bool = False) -> EpisodeResult:
    """One episode from reset to its end."""
    spec = data_spec(env)
    obs, info = env.reset(seed=seed)
    agent.reset(seed)
    rows: list[tuple[Obs, Any, Info]] = []
    ticks, over = 0, False
    while not over:
        action = agent.act(obs, ticks / spec.rate_hz)
        if record:
            rows.append((obs, action, info))
        obs, _, terminated, truncated, info = env.step(action)
        ticks, over = ticks + 1, terminated or truncated
    success, outcome, metrics = ending(env, info)
    trace = _trace(env, rows) if record else None
    return EpisodeResult(seed, success, outcome, metrics, ticks, agent.stats(), trace)


def ending(env: Env, info: Info) -> tuple[bool, str, dict[str, float]]:
    """Success, outcome and metrics out of the last `info` of an episode."""
    if missing := [key for key in ("success", "outcome", "metrics") if key not in info]:
        raise ValueError(f"{env} ended an episode without info {missing}; got {sorted(info)}.")
    metrics = {name: float(value) for name, value in info["metrics"].items()}
    return bool(info["success"]), str(info["outcome"]), metrics


def _trace(env: Env, rows: list[tuple[Obs, Any, Info]]) -> Trace:
    """Arrays of the episode: observation keys, `action`, and `object_pose` where there is one."""
    spec = data_spec(env)
    trace: Trace = {}
    for key in spec.obs:
        join = np.concatenate if spec.is_fast(key) else np.stack
        trace[key] = join([obs[key] for obs, _, _ in rows])
    trace["action"] = np.stack([action for _, action, _ in rows])
    if all("object_pose" in info for _, _, info in rows):
        trace["object_pose"] = np.stack([info["object_pose"] for _, _, info in rows])
    return trace


@dataclass(frozen=True)
class _Evaluation:
    """Sent to each worker: makes the environment and the agent there, once."""

    make_env: Callable[[], Env]
    make_agent: Callable[[], Agent]
    recorded: frozenset[int]

    def __call__(self) -> Callable[[int], EpisodeResult]:
        env, agent = self.make_env(), self.make_agent()
        return lambda seed: run_episode(env, agent, seed, record=seed in self.recorded)


def evaluate(
    make_env: Callable[[], Env],
    make_agent: Callable[[], Agent],
    seeds: Sequence[int],
    workers: int = 1,
    progress: bool = True,
    record: int = 0,
    executor: Executor = SeedWorkers,
) -> list[EpisodeResult]:
    """Results in the order of their seeds; EpisodeError names the seed of what went wrong.

    Always in other processes: off-screen rendering and training must not share one. Both
    factories must be picklable and are called once in each worker; `make_agent` also sets its
    threads. The first `record` seeds keep the trace of their episode.
    """
    seeds = [int(seed) for seed in seeds]
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"{len(seeds)} seeds, but only {len(set(seeds))} different ones.")
    setup = _Evaluation(make_env, make_agent, frozenset(seeds[:record]))
    results: list[EpisodeResult] = []
    bar = tqdm(total=len(seeds), unit="episode", desc="evaluate", disable=not progress)
    with bar, executor(setup, min(workers, max(1, len(seeds)))) as pool:
        for _, result in pool.run(iter(seeds)):
            results.append(result)
            successes = sum(r.success for r in results)
            bar.set_postfix(success=f"{successes / len(results):.2f}", refresh=False)
            bar.update()
    return sorted(results, key=lambda result: result.seed)
