"""Processes that run one seed at a time, so that whatever goes wrong has a seed to its name."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Setup = Callable[[], Callable[[int], T]]

_setup: Setup[Any]
_job: Callable[[int], Any] | None = None


class EpisodeError(RuntimeError):
    """An episode ended by an error or with its process, not by its outcome."""


class SeedPool(Protocol[T_co]):
    """Workers that are there inside a `with`."""

    def run(self, seeds: Iterator[int], ahead: int | None = None) -> Iterator[tuple[int, T_co]]:
        """Pairs (seed, result) as they are ready; with `ahead` in the order of `seeds`."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Executor(Protocol):
    """Where seeds are run: `SeedWorkers` itself, or another maker of pools (configs/executor)."""

    def __call__(self, setup: Setup[T], workers: int) -> SeedPool[T]:
        """A pool of so many workers, each set up once by `setup()`."""
        ...


class SeedWorkers(Generic[T]):
    """Spawned processes, each set up once by `setup()`, which returns the job: seed -> result.

    Each process is an executor of its own: if it dies, the seed that it was running is known.
    """

    def __init__(self, setup: Setup[T], workers: int) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}.")
        # fork would copy the parent's threads, locks and graphics contexts.
        spawn = multiprocessing.get_context("spawn")
        self._pools = [
            ProcessPoolExecutor(1, mp_context=spawn, initializer=_begin, initargs=(setup,))
            for _ in range(workers)
        ]

    def run(self, seeds: Iterator[int], ahead: int | None = None) -> Iterator[tuple[int, T]]:
        """Pairs (seed, result), in the order in which they are ready.

        With `ahead` they come in the order of `seeds`; at most that many wait for an earlier one.
        """
        if ahead is not None:
            yield from self._in_order(seeds, ahead)
            return
        running: dict[Future[T], tuple[int, ProcessPoolExecutor]] = {}
        for pool, seed in zip(self._pools, seeds, strict=False):
            running[pool.submit(_run, seed)] = (seed, pool)
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                seed, pool = running.pop(future)
                result = _result(future, seed)
                # The next episode runs while the consumer is busy with this one.
                if (following := next(seeds, None)) is not None:
                    running[pool.submit(_run, following)] = (following, pool)
                yield seed, result

    def _in_order(self, seeds: Iterator[int], ahead: int) -> Iterator[tuple[int, T]]:
        idle, order = list(self._pools), list[int]()
        running: dict[Future[T], tuple[int, ProcessPoolExecutor]] = {}
        ready: dict[int, T] = {}
        while True:
            while idle and len(order) < ahead and (seed := next(seeds, None)) is not None:
                pool = idle.pop()
                running[pool.submit(_run, seed)] = (seed, pool)
                order.append(seed)
            if not order:
                return
            if order[0] in ready:
                first = order.pop(0)
                yield first, ready.pop(first)
                continue
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                seed, pool = running.pop(future)
                ready[seed] = _result(future, seed)
                idle.append(pool)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pool in self._pools:
            pool.shutdown(wait=True, cancel_futures=True)


def _result(future: Future[T], seed: int) -> T:
    error = future.exception()
    if error is not None:
        raise episode_error(seed, error) from error
    return future.result()


def episode_error(seed: int, error: BaseException) -> EpisodeError:
    """What to raise from the `error` that ended the episode of `seed`."""
    return EpisodeError(
        f"seed {seed}: the worker failed: {type(error).__name__}: {error} "
        f"Run seed {seed} alone to reproduce it."
    )


def _begin(setup: Setup[Any]) -> None:
    """In the worker: remember what to make, and die with the parent."""
    global _setup
    _setup = setup
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _run(seed: int) -> Any:
    global _job
    if _job is None:  # not in `_begin`: what an initializer raises does not reach the parent
        _job = _setup()
    return _job(seed)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
