"""What a run tells of itself: rows in metrics.jsonl, TensorBoard curves, seconds per part."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any

from torch.utils.tensorboard import SummaryWriter

PARTS = ("load", "copy", "forward", "backward", "optimizer", "ema", "log", "save", "eval")
# What a step costs beside the network: the parts a training loop should keep small.
OVERHEAD = ("load", "copy", "ema", "log")


class StepTimer:
    """Seconds spent in each part of the steps, by laps: a lap ends one part and starts the next.

    On CUDA a lap holds the launch of the work, and the wait for it falls into "log".
    """

    def __init__(self) -> None:
        self.total = dict.fromkeys(PARTS, 0.0)
        self._interval = dict.fromkeys(PARTS, 0.0)
        self._since = perf_counter()

    def lap(self, part: str) -> None:
        """Book the time since the last lap to `part`."""
        now = perf_counter()
        self._interval[part] += now - self._since
        self._since = now

    def take_interval(self) -> dict[str, float]:
        """Seconds per part since the last call."""
        taken, self._interval = self._interval, dict.fromkeys(PARTS, 0.0)
        for part, seconds in taken.items():
            self.total[part] += seconds
        return taken

    def shares(self) -> dict[str, float]:
        """Share of the training time per part, and of `OVERHEAD`; saves and evaluations apart."""
        self.take_interval()
        training = {part: s for part, s in self.total.items() if part not in ("save", "eval")}
        whole = sum(training.values()) or 1.0
        shares = {part: seconds / whole for part, seconds in training.items()}
        return shares | {"overhead": sum(shares[part] for part in OVERHEAD)}


class MetricsLog:
    """Appends rows to `run_dir/metrics.jsonl` and their numbers to `run_dir/tensorboard`.

    Opened at the step a run goes on from, it drops the rows of later steps: they belong to work
    that a kill threw away and that will be done again.
    """

    def __init__(self, run_dir: Path, start_step: int = 0) -> None:
        path = run_dir / "metrics.jsonl"
        _drop_rows_after(path, start_step)
        self._file = path.open("a", encoding="utf-8")
        purge = start_step + 1 if start_step else None
        self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=purge)

    def write(self, step: int, row: Mapping[str, Any]) -> None:
        """Append one row; a nested dict becomes `group/name` in TensorBoard."""
        self._file.write(json.dumps({"step": step, **row}) + "\n")
        self._file.flush()
        for name, value in row.items():
            group = value if isinstance(value, Mapping) else {"": value}
            for key, number in group.items():
                self._board.add_scalar(f"{name}/{key}".rstrip("/"), number, step)

    def close(self) -> None:
        """Flush both files."""
        self._file.close()
        self._board.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last line that a kill cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    # Text after the last newline is a row whose writing was cut off.
    return [json.loads(line) for line in lines[:-1]]


def _drop_rows_after(path: Path, step: int) -> None:
    rows = [row for row in read_metrics(path) if row["step"] <= step]
    beside = path.with_name(f".{path.name}.new")
    beside.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    beside.replace(path)
