"""A child process that tells why it died and never outlives its parent."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import deploy

ROOT = Path(deploy.__file__).parents[1]
TAIL = 20  # lines of the log that an error message shows


class ProcessDiedError(RuntimeError):
    """A child process ended although it should have gone on."""


class Child:
    """`python -m MODULE ...`, everything it writes in a log file; a context manager.

    Its standard input is a pipe that is never written to: when the parent dies, however it does,
    the pipe ends, which the child watches. It has a session of its own, so that Ctrl-C reaches the
    parent alone and the children are stopped in order.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str]
    ) -> None:
        self.name, self.log = name, log
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def check(self) -> None:
        """Raise ProcessDiedError, with the end of the log, if the process has ended."""
        status = self._process.poll()
        if status is not None:
            raise ProcessDiedError(
                f"the {self.name} ended with status {status}; its last words ({self.log}):\n"
                f"{self.tail()}"
            )

    def tail(self) -> str:
        """The last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-TAIL:])

    def stop(self, timeout: float = 5.0) -> None:
        """Ask it to end; kill it after `timeout` [s]."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
