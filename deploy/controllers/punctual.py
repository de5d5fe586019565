"""Updates that keep a deadline: the solve goes on in the background, the old chunk in force."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet

from data.spec import DataSpec, Obs
from deploy.chunk import ActionChunk
from deploy.controllers.base import NO_COST
from deploy.controllers.budget import StepBudget
from deploy.controllers.solve import Plan

# How long before the deadline an update stops waiting, at most [s]: waking up takes time, and so
# does getting the interpreter back from the other thread. A plan that is late is not lost.
RESERVE = 4e-4
# How long a finished plan takes from one thread to the other [s].
HANDOVER = 1e-4
# How long the other thread may keep the interpreter from an update that wants it back [s].
SWITCH_INTERVAL = 2e-5

# A plan for an observation and its stamp, from the chunk before it, within a budget.
Planner = Callable[[Obs, ActionChunk | None, float, StepBudget], Plan]
IsDue = Callable[[ActionChunk, float], bool]


class PunctualSolve:
    """Solves in a thread of its own, for which no update waits longer than `deadline_ms`.

        update k      |encode          :                the old chunk goes on
        (between)     |      denoise|  : deadline
        update k + 1  |encode          :                chunk k, from the stamp of update k on

    One solve at a time, which picks its number of steps by the budget that it is given. What is
    not ready at the deadline is taken by a later update, which then begins the next one. A chunk
    counts from the observation that it is made from, however long it took.
    """

    def __init__(
        self,
        spec: DataSpec,
        deadline_ms: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if isinstance(deadline_ms, bool) or not isinstance(deadline_ms, (int, float)):
            raise ValueError(f"deadline_ms must be a number or null, got {deadline_ms!r}.")
        if not deadline_ms > 0:
            raise ValueError(f"deadline_ms must be above 0, got {deadline_ms}.")
        deadline = deadline_ms / 1000  # [s]
        reserve = min(RESERVE, deadline / 2)
        self._spec, self._handover = spec, min(HANDOVER, deadline / 4)
        self._budget = StepBudget(deadline - reserve - self._handover, clock)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prise-solve")
        self._solving: Future[Plan] | None = None
        # Without this the interpreter may come back only after 5 ms.
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL))
        self.reset()

    def reset(self) -> None:
        """Forget chunk and solve, the latter once it has ended: noise is not drawn by two."""
        solving, self._solving = self._solving, None
        if solving is not None:
            solving.exception()
        self._chunk: ActionChunk | None = None
        self._stamp = 0.0
        self.last_nfe, self.last_seconds = 0, dict(NO_COST)

    def update(
        self, obs: Obs, stamp: float, plan: Planner, is_due: IsDue = lambda chunk, stamp: True
    ) -> ActionChunk:
        """The newest chunk that is ready in time; before the first one, a tick without motion."""
        self._budget.start()
        self.last_nfe, self.last_seconds = 0, dict(NO_COST)
        self._take(stamp)
        chunk = self._chunk
        if self._solving is None and (chunk is None or is_due(chunk, stamp)):
            kept = {key: obs[key].copy() for key in self._spec.obs}  # the caller's move on
            self._stamp = stamp
            self._solving = self._thread.submit(plan, kept, chunk, stamp, self._budget)
            self._take(stamp)
        if self._chunk is None:
            return ActionChunk(self._spec.action.still[None], stamp, 1 / self._spec.rate_hz)
        return self._chunk

    def _take(self, stamp: float) -> None:
        """Wait for the solve under way as long as there is time, and take what it gives."""
        if self._solving is None:
            return
        try:
            plan = self._solving.result(max(0.0, self._budget.left + self._handover))
        except NotYet:
            return
        self._solving = None
        self.last_nfe += plan.nfe
        self.last_seconds = {k: self.last_seconds[k] + plan.seconds[k] for k in NO_COST}
        self._chunk = ActionChunk(plan.actions, self._stamp, 1 / self._spec.rate_hz)
