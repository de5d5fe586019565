"""Demonstrations: experts in parallel, one writer, the same store for any number of workers."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from tqdm import tqdm

from data.formats.zarr_store import Episode, ZarrWriter, open_zarr
from data.spec import DataSpec, Obs
from envs.base import Expert, ExpertAction, data_spec
from envs.evaluate import Env, ending
from envs.workers import Executor, SeedWorkers

log = logging.getLogger(__name__)

Keep = Literal["success", "all"]
MAX_FAILURES_IN_A_ROW = 50
AHEAD = 4  # episodes per worker that may wait for an earlier, longer one


@dataclass(frozen=True)
class Demonstration:
    """One episode of the expert; `episode` is None where it is not to be kept."""

    seed: int
    success: bool
    outcome: str
    ticks: int
    episode: Episode | None


@dataclass(frozen=True)
class CollectSummary:
    """What is in the store now (`episodes`) and what this run did; times in seconds."""

    episodes: int
    failed_seeds: tuple[int, ...]
    seconds: float
    sim_seconds: float

    @property
    def failed(self) -> int:
        """Episodes of this run in which the expert failed."""
        return len(self.failed_seeds)

    @property
    def realtime_factor(self) -> float:
        """Simulated seconds per second."""
        return self.sim_seconds / self.seconds if self.seconds else 0.0


def demonstrate(env: Env, expert: Expert, seed: int, keep: Keep = "success") -> Demonstration:
    """Run the expert for one episode."""
    obs, info = env.reset(seed=seed)
    expert.reset(seed)
    rows: list[tuple[Obs, ExpertAction]] = []
    over = False
    while not over:
        choice = expert.act(obs, info)
        rows.append((obs, choice))
        obs, _, terminated, truncated, info = env.step(choice.to_execute)
        over = terminated or truncated
    success, outcome, _ = ending(env, info)
    kept = success or keep == "all"
    episode = _episode(data_spec(env), rows, seed) if kept else None
    return Demonstration(seed, success, outcome, len(rows), episode)


def _episode(spec: DataSpec, rows: list[tuple[Obs, ExpertAction]], seed: int) -> Episode:
    obs = {key: np.stack([row[key] for row, _ in rows]) for key in spec.obs}
    action = np.stack([choice.action for _, choice in rows]).astype(np.float32)  # (T, A)
    valid = np.array([choice.valid for _, choice in rows], np.bool_)
    return Episode(obs, action, valid, seed)


@dataclass(frozen=True)
class _Collection:
    """Sent to each worker: makes the environment and the expert there, once."""

    make_env: Callable[[], Env]
    make_expert: Callable[[], Expert]
    keep: Keep

    def __call__(self) -> Callable[[int], Demonstration]:
        env, expert = self.make_env(), self.make_expert()
        return lambda seed: demonstrate(env, expert, seed, self.keep)


def collect(
    make_env: Callable[[], Env],
    make_expert: Callable[[], Expert],
    path: str | os.PathLike[str],
    episodes: int,
    workers: int = 1,
    seed0: int = 0,
    keep: Keep = "success",
    resume: bool = True,
    progress: bool = True,
    provenance: Mapping[str, Any] | None = None,
    executor: Executor = SeedWorkers,
) -> CollectSummary:
    """Bring the store at `path` to `episodes` episodes, with seeds from `seed0` upwards.

    Episodes are written in the order of their seeds, by this process alone: the store does not
    depend on `workers` or `executor`. A killed run loses what was not yet written; calling again
    continues after the last seed there. Factories must be picklable. `keep` "success" leaves out
    episodes in which the expert failed; `provenance` is stored beside what is known here.
    """
    if keep not in get_args(Keep):
        raise ValueError(f"keep must be one of {get_args(Keep)}, got {keep!r}.")
    spec = _spec_of(make_env)
    about = {
        "env": _name(make_env),
        "expert": _name(make_expert),
        "seed0": seed0,
        "keep": keep,
    }
    with ZarrWriter(path, spec, {**(provenance or {}), **about}, resume=resume) as writer:
        _check_same_run(writer.path, about)
        # Seeds between those in the store have failed, and would fail again.
        first = max(writer.seeds, default=seed0 - 1) + 1
        run = _Run(writer, spec, episodes, progress)
        if writer.num_episodes < episodes:
            with executor(_Collection(make_env, make_expert, keep), workers) as pool:
                run.take(pool.run(itertools.count(first), ahead=AHEAD * workers))
        return run.summary()


def _spec_of(make_env: Callable[[], Env]) -> DataSpec:
    env = make_env()
    spec = data_spec(env)
    env.close()
    return spec


def _name(factory: Callable[[], Any]) -> str:
    """The factory in words that are the same in the next run: no memory addresses."""
    if hasattr(factory, "__qualname__"):
        return f"{factory.__module__}.{factory.__qualname__}"
    return repr(factory)


def _check_same_run(path: Path, about: Mapping[str, Any]) -> None:
    """A store continued with other settings would hold two kinds of episodes, unmarked."""
    stored = open_zarr(path).provenance
    for key, value in about.items():
        if stored.get(key) != value:
            raise ValueError(
                f"{path} was collected with {key} {stored.get(key)!r}, now it is {value!r}; "
                "use the same, or write to another path."
            )


class _Run:
    """Writes what comes in and keeps the count."""

    def __init__(self, writer: ZarrWriter, spec: DataSpec, wanted: int, progress: bool) -> None:
        self._writer, self._spec, self._wanted, self._progress = writer, spec, wanted, progress
        self._failed: list[int] = []
        self._outcomes: Counter[str] = Counter()
        self._sim_seconds = 0.0
        self._started = time.monotonic()

    def take(self, demonstrations: Iterator[tuple[int, Demonstration]]) -> None:
        """Append episodes until there are enough."""
        failures_in_a_row = 0
        with tqdm(
            total=self._wanted,
            initial=self._writer.num_episodes,
            unit="episode",
            desc="collect",
            disable=not self._progress,
        ) as bar:
            for seed, demonstration in demonstrations:
                self._sim_seconds += demonstration.ticks / self._spec.rate_hz
                self._outcomes[demonstration.outcome] += 1
                failures_in_a_row = 0 if demonstration.success else failures_in_a_row + 1
                if not demonstration.success:
                    self._failed.append(seed)
                if demonstration.episode is not None:
                    self._writer.append(demonstration.episode)
                    bar.update()
                bar.set_postfix(
                    failed=self.summary().failed, realtime=f"x{self.summary().realtime_factor:.1f}"
                )
                if self._writer.num_episodes >= self._wanted:
                    return
                if failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
                    raise ValueError(
                        f"the expert failed {failures_in_a_row} times in a row, up to seed {seed}, "
                        f"outcomes {dict(self._outcomes)}; check the environment's arguments."
                    )

    def summary(self) -> CollectSummary:
        """What has been done so far."""
        seconds = time.monotonic() - self._started
        if self._failed:
            log.debug("failed seeds %s, outcomes %s", self._failed, dict(self._outcomes))
        return CollectSummary(
            self._writer.num_episodes, tuple(self._failed), seconds, self._sim_seconds
        )
