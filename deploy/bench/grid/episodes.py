"""Episodes of a grid: run in worker processes, kept one line each, never run twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from deploy.agent import AgentFactory, LockstepAgent
from deploy.bench.grid.cells import Cell, Task
from deploy.commands.simulation import matching_env
from deploy.motion import figures
from envs.base import EnvFactory
from envs.evaluate import EpisodeResult, run_episode
from envs.workers import Executor
from policy.checkpoint import MANIFEST, load_policy


@dataclass(frozen=True)
class Episode:
    """One line of `episodes.jsonl`. Times in ms, of the ticks in which something was planned."""

    cell: str
    digest: str  # of all that decides the episode besides the seed
    seed: int
    success: bool
    outcome: str
    ticks: int
    nfe: float
    plans: float
    tick_ms: list[float]
    metrics: dict[str, float]
    motion: dict[str, float]
    actions: list[list[float]] = field(default_factory=list)  # (ticks, A), of tasks that react


@dataclass(frozen=True)
class GridSetup:
    """Sent to each worker: makes the job that runs episode number i of the whole grid."""

    tasks: Mapping[str, Task]
    cells: Sequence[Cell]
    seeds: Sequence[int]
    envs: Mapping[str, EnvFactory]
    keep_actions: frozenset[str]

    def __call__(self) -> Callable[[int], Episode]:
        """The job of a worker."""
        return partial(self._job, _Made())

    def split(self, number: int) -> tuple[Cell, int]:
        """The cell and the seed of an episode's number."""
        cell, seed = divmod(number, len(self.seeds))
        return self.cells[cell], self.seeds[seed]

    def _job(self, made: _Made, number: int) -> Episode:
        cell, seed = self.split(number)
        env, agent = made.of(self, cell)
        result = run_episode(env, agent, seed)
        digest = digest_of(self.tasks[cell.task], cell)
        return _episode(cell, digest, result, agent, cell.task in self.keep_actions)


class _Made:
    """A worker's environment and agent: those of the cell it was last asked for."""

    def __init__(self) -> None:
        self._task: str | None = None
        self._cell: Cell | None = None
        self._env: Any = None
        self._agent: LockstepAgent | None = None

    def of(self, setup: GridSetup, cell: Cell) -> tuple[Any, LockstepAgent]:
        """Environment and agent of a cell."""
        if cell.task != self._task:
            if self._env is not None:
                self._env.close()
            self._env, self._task = setup.envs[cell.task](), cell.task
        if cell != self._cell or self._agent is None:
            checkpoint = setup.tasks[cell.task].checkpoint_of(cell.scheme)
            self._agent = AgentFactory(checkpoint, cell.controller, 1, cell.delay)()
            self._cell = cell
        return self._env, self._agent


def _episode(
    cell: Cell, digest: str, result: EpisodeResult, agent: LockstepAgent, keep_actions: bool
) -> Episode:
    stats, spec = result.agent_stats, agent.spec
    planned = np.array(stats["is_plan"]) > 0
    executed = agent.executed
    return Episode(
        cell=cell.key,
        digest=digest,
        seed=result.seed,
        success=result.success,
        outcome=result.outcome,
        ticks=result.ticks,
        nfe=float(np.sum(stats["nfe"])),
        plans=float(planned.sum()),
        tick_ms=[round(1000 * s, 3) for s in np.array(stats["tick_s"])[planned].tolist()],
        metrics=result.metrics,
        motion=figures(executed, spec.action, 1 / spec.rate_hz),
        actions=[np.round(e.action, 6).tolist() for e in executed] if keep_actions else [],
    )


def run_grid(
    tasks: Mapping[str, Task],
    cells: Sequence[Cell],
    seeds: Sequence[int],
    path: Path,
    workers: int,
    executor: Executor,
) -> list[Episode]:
    """Every episode of the grid; those that `path` holds already are read and not run again."""
    envs = {name: matching_env(t.env, load_policy(t.checkpoint).spec) for name, t in tasks.items()}
    reacting = {name for t in tasks.values() if t.against for name in (t.name, t.against)}
    setup = GridSetup(tasks, cells, seeds, envs, frozenset(reacting))
    known = {(e.cell, e.digest, e.seed): e for e in read_episodes(path)}
    digests = [digest_of(tasks[cell.task], cell) for cell in cells]
    places = [
        (cell.key, digest, seed)
        for cell, digest in zip(cells, digests, strict=True)
        for seed in seeds
    ]
    missing = [number for number, place in enumerate(places) if place not in known]
    path.parent.mkdir(parents=True, exist_ok=True)
    bar = tqdm(total=len(places), initial=len(places) - len(missing), unit="episode", desc="grid")
    with path.open("a", encoding="utf-8") as file, bar:
        if missing:
            with executor(setup, min(workers, len(missing))) as pool:
                for number, episode in pool.run(iter(missing)):
                    file.write(json.dumps(asdict(episode), allow_nan=False) + "\n")
                    file.flush()
                    known[places[number]] = episode
                    bar.set_postfix_str(episode.cell, refresh=False)
                    bar.update()
    return [known[place] for place in places]


def digest_of(task: Task, cell: Cell) -> str:
    """Names the settings and the weights: an episode of others is run anew."""
    manifest = (task.checkpoint_of(cell.scheme) / MANIFEST).read_text(encoding="utf-8")
    settings = json.dumps([task.env, cell.controller, manifest], sort_keys=True)
    return hashlib.sha256(settings.encode()).hexdigest()[:16]


def read_episodes(path: Path) -> list[Episode]:
    """The episodes of earlier runs; a last line that was cut off in the middle is removed."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, encoding="utf-8")
    return [Episode(**json.loads(line)) for line in whole.splitlines()]
