"""From an observation's stamp to the first command that carries its plan."""

from __future__ import annotations

from collections.abc import Callable

from data.spec import DataSpec, Obs
from deploy.chunk import ActionChunk
from deploy.controllers.base import Controller


class TimedController:
    """A controller that notes when each of its plans reaches the robot.

        stamp      update begins   plan ready      command from this plan is published
        |--- wire ---|--- encode, solve ---|--- wait for t0 ---|
        |<------------------- latency ------------------------>|

    `update` runs in the planner's thread, `commanded` in the command loop's; they share one tuple,
    which is replaced as a whole.
    """

    def __init__(self, controller: Controller, stamp: Callable[[], float]) -> None:
        """`stamp()` is that of the newest observation handed to the planner [s]."""
        self._controller, self._stamp = controller, stamp
        self._chunk: ActionChunk | None = None
        self.last_nfe = 0
        self.last_seconds: dict[str, float] = {}
        self.clear()

    def clear(self) -> None:
        """Forget what was measured."""
        self._pending: tuple[float, float] | None = None  # (t0 of the plan, stamp it is based on)
        self.latency_s: list[float] = []
        self.superseded = 0

    @property
    def spec(self) -> DataSpec:
        """The controller's."""
        return self._controller.spec

    def reset(self, seed: int = 0) -> None:
        """Reset the controller; what was measured stays."""
        self._controller.reset(seed)
        self._chunk = self._pending = None

    def update(self, obs: Obs, apply_at: float) -> ActionChunk:
        """The controller's chunk."""
        stamp = self._stamp()
        chunk = self._controller.update(obs, apply_at)
        self.last_nfe = self._controller.last_nfe
        self.last_seconds = self._controller.last_seconds
        if chunk is not self._chunk:
            self.superseded += self._pending is not None
            self._chunk, self._pending = chunk, (chunk.t0, stamp)
        return chunk

    def commanded(self, now: float) -> None:
        """A command has been published at `now` [s]."""
        pending = self._pending
        if pending is not None and now >= pending[0]:
            self._pending = None
            self.latency_s.append(now - pending[1])
