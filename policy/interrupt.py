"""SIGINT and SIGTERM as a wish to stop that the training loop grants between two steps."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

SIGNALS = (signal.SIGINT, signal.SIGTERM)
T = TypeVar("T")
LOG = logging.getLogger(__name__)


class StopSignal:
    """Context in which the first signal sets `requested` and a second one raises KeyboardInterrupt.

    Outside the main thread Python delivers no signals: there `requested` stays False.
    """

    def __init__(self) -> None:
        self.requested = False
        self._at_once = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def run(self, work: Callable[[], T]) -> T | None:
        """The result of work that may be thrown away; None where a signal ended it, at once."""
        self._at_once = True
        try:
            return None if self.requested else work()
        except KeyboardInterrupt:
            if not self.requested:
                raise
            return None
        finally:
            self._at_once = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested or self._at_once:
            self.requested = True
            raise KeyboardInterrupt
        self.requested = True
        LOG.warning("%s: finishing this step, then saving.", signal.Signals(number).name)
