"""Seeds on a Ray cluster: as `SeedWorkers`, with actors in the place of processes."""

from __future__ import annotations

import logging
import os
import socket
import textwrap
from collections import Counter, deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import ray
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from envs.workers import EpisodeError, Setup, episode_error

T = TypeVar("T")

# The process or its machine is gone, not the episode wrong.
LOST = (RayActorError, WorkerCrashedError, NodeDiedError, OutOfMemoryError, ObjectLostError)
PATIENCE = 30.0  # [s] without any news, until the log says so
WORDS_OF_RAY = 300  # [characters] of what Ray says of a death: the beginning is what matters
LOG = logging.getLogger(__name__)


class RayWorkers(Generic[T]):
    """Ray actors of one core each, set up once by `setup()`, which returns the job: seed -> result.

    Results are those of `SeedWorkers`. A seed whose actor dies is run again, by the actor that is
    free first; an error inside an episode would come again and is raised at once.

    Args:
        setup: Picklable; every machine of the cluster must have the same Prise installed.
        workers: Number of actors. A cluster with fewer free cores starts as many as it can, and
            the others when there is room.
        address: `host:port` of a cluster, or `auto` for the one that runs on this machine. None
            starts one here and ends it afterwards, unless this process is connected already.
        retries: How often a seed is run again before EpisodeError.
    """

    def __init__(
        self, setup: Setup[T], workers: int, address: str | None = None, retries: int = 3
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}.")
        if retries < 0:
            raise ValueError(f"retries must be at least 0, got {retries}.")
        self._setup, self._workers, self._retries = setup, workers, retries
        self._address = address
        self._connected = False  # by us, so that we must disconnect
        # What is awaited: reference -> (actor, its seed, or None while it starts).
        self._running: dict[Any, tuple[Any, int | None]] = {}
        self._idle: list[Any] = []
        self._again: deque[int] = deque()
        self._losses: Counter[int | None] = Counter()

    def run(self, seeds: Iterator[int], ahead: int | None = None) -> Iterator[tuple[int, T]]:
        """Pairs (seed, result), in the order in which they are ready.

        With `ahead` they come in the order of `seeds`; at most that many wait for an earlier one.
        """
        given: deque[int] = deque()  # out and not yet yielded, in the order of `seeds`
        ready: dict[int, T] = {}
        while True:
            while self._idle and (seed := self._next(seeds, given, ahead)) is not None:
                self._start(seed)
            if ready and (ahead is None or given[0] in ready):
                seed = next(iter(ready)) if ahead is None else given[0]
                given.remove(seed)
                yield seed, ready.pop(seed)
            elif given or not self._idle:
                ready.update(self._awaited())
            else:
                return

    def _next(self, seeds: Iterator[int], given: deque[int], ahead: int | None) -> int | None:
        if self._again:
            return self._again.popleft()
        if ahead is not None and len(given) >= ahead:
            return None
        if (seed := next(seeds, None)) is not None:
            given.append(seed)
        return seed

    def _start(self, seed: int) -> None:
        actor = self._idle.pop()
        self._running[actor.run.remote(seed)] = (actor, seed)

    def _awaited(self) -> dict[int, T]:
        """Wait for an actor; the result of its seed, nothing where it came up or died."""
        done: list[Any] = []
        while not done:
            done, _ = ray.wait(list(self._running), num_returns=1, timeout=PATIENCE)
            if not done and not self._any_started():
                LOG.warning(
                    "no Ray worker has started for %.0f s; `ray status` shows what is free.",
                    PATIENCE,
                )
        actor, seed = self._running.pop(done[0])
        try:
            result = ray.get(done[0])
        except LOST as error:
            self._replace(actor, seed, error)
            return {}
        except RayTaskError as error:
            assert seed is not None  # a starting actor runs nothing that could raise
            raise episode_error(seed, error.cause) from error.cause
        self._idle.append(actor)
        if seed is None:
            self._losses[None] = 0
            return {}
        return {seed: result}

    def _any_started(self) -> bool:
        return bool(self._idle) or any(seed is not None for _, seed in self._running.values())

    def _replace(self, actor: Any, seed: int | None, error: Exception) -> None:
        """A new actor for one that is gone; its seed comes next."""
        ray.kill(actor)  # Its answer may be lost while it lives.
        self._losses[seed] += 1
        who = "a starting worker" if seed is None else f"seed {seed}: the worker"
        why = textwrap.shorten(str(error), WORDS_OF_RAY)
        if self._losses[seed] > self._retries:
            raise EpisodeError(
                f"{who} died {self._losses[seed]} times, the last time so: {why} "
                "Look at the memory and the logs of the Ray cluster."
            ) from error
        LOG.warning("%s died and is replaced: %s", who, why)
        if seed is not None:
            self._again.append(seed)
        self._add_actor()

    def _add_actor(self) -> None:
        # Not a decorator: what one made is of no use after Ray was shut down and started again.
        remote: Any = ray.remote(SeedActor)
        actor = remote.options(num_cpus=1).remote(self._setup)
        self._running[actor.ready.remote()] = (actor, None)

    def __enter__(self) -> Self:
        if not ray.is_initialized():
            _connect(self._address, self._workers)
            self._connected = True
        for _ in range(self._workers):
            self._add_actor()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for actor in [*self._idle, *(actor for actor, _ in self._running.values())]:
            ray.kill(actor)
        self._idle.clear()
        self._running.clear()
        if self._connected:
            ray.shutdown()
            self._connected = False


class SeedActor:
    """In a process of the cluster: makes the job with its first seed, then runs one at a time."""

    def __init__(self, setup: Setup[Any]) -> None:
        self._setup = setup
        self._job: Callable[[int], Any] | None = None

    def ready(self) -> None:
        """Answers once the process is there."""

    def run(self, seed: int) -> Any:
        """Result of `seed`."""
        if self._job is None:
            self._job = self._setup()
        return self._job(seed)


def _connect(address: str | None, cores: int) -> None:
    # Ray reports how it is used unless told not to; that is the user's choice and not ours.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:
        ray.init(
            "local",
            num_cpus=cores,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,  # Its warnings are for those who keep a cluster.
        )
        return
    _check_reachable(address)
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.WARNING)
    except ConnectionError as error:
        raise ConnectionError(
            f"{error}. A cluster that asks for a token wants RAY_AUTH_MODE=token set here too."
        ) from error


def _check_reachable(address: str) -> None:
    """ConnectionError within seconds; Ray itself tries for two minutes."""
    host, _, port = address.rpartition(":")
    if "/" in host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise ConnectionError(
            f"no Ray cluster answers at {address} ({error}); `ray start --head` starts one and "
            "prints its address."
        ) from error
