"""Which cores the threads that act may run on.

    planner        the networks; threads of an engine belong here too
    command loop   the robot's rate

A thread that is kept on a core finds its caches there, and is not moved at a bad moment; but it
also waits there while another core idles. So nothing is pinned unless it is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Placement:
    """Cores of the two threads of a real-time loop; None is wherever the kernel puts them."""

    plan: Sequence[int] | None = None
    command: Sequence[int] | None = None

    def __post_init__(self) -> None:
        for cores in (self.plan, self.command):  # now, and not when a thread begins
            with pinned(cores):
                pass


def pin_thread(cores: Sequence[int] | None) -> None:
    """Keep the calling thread, and those that it starts from now on, on `cores`; None: no change.

    Raises ValueError where this process may not use all of them.
    """
    if cores is None:
        return
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cores)
        is_whole = os.sched_getaffinity(0) == set(cores)  # a core it does not have is left out
    except (TypeError, ValueError, OverflowError, OSError):
        is_whole = False
    if not is_whole:
        os.sched_setaffinity(0, before)
        raise ValueError(
            f"cannot keep a thread on the cores {cores}: this process runs on {sorted(before)}; "
            "give a list of some of them, as [0,1], or null for any."
        )


@contextmanager
def pinned(cores: Sequence[int] | None) -> Iterator[None]:
    """`pin_thread` for as long as the context lasts; threads started in it stay on `cores`.

    An engine's threads are started where it is loaded and where it first computes.
    """
    before = os.sched_getaffinity(0)
    pin_thread(cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
