"""Children that compute: several trainings at the same time, with a bar each, or one bench."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

import deploy
from deploy.report.run_files import METRICS, read_rows

ROOT = Path(deploy.__file__).parents[1]
LOOK_EVERY = 0.5  # [s]
TIME_TO_SAVE = 120.0  # [s] that a training has to finish its step and save


class ChildFailedError(RuntimeError):
    """A child process ended without having done its work."""


@dataclass(frozen=True)
class TrainingJob:
    """One training: its name, arguments of `prise train`, folder and number of steps."""

    name: str
    arguments: Sequence[str]
    out: Path
    steps: int

    def row(self) -> Mapping[str, float]:
        """The newest row of its log."""
        rows = [row for row in read_rows(self.out / METRICS) if "loss" in row]
        return rows[-1] if rows else {"step": 0}


def train_together(jobs: Sequence[TrainingJob], logs: Path, threads: int = 1) -> None:
    """Run all jobs at once; whatever ends this ends them too, saved and ready to go on."""
    with ExitStack() as stack:
        children = []
        for place, job in enumerate(jobs):
            log = logs / f"train_{job.name}.log"
            command = ["train", *job.arguments]
            child = stack.enter_context(_child(command, log, threads))
            bar = stack.enter_context(
                tqdm(
                    total=job.steps,
                    initial=int(job.row()["step"]),  # of an earlier run: no measure of the speed
                    desc=f"train {job.name}",
                    position=place,
                    unit="step",
                )
            )
            children.append((job, child, bar, log))
        running = True
        while running:
            time.sleep(LOOK_EVERY)
            running = False
            for job, child, bar, log in children:
                ended = child.poll() is not None
                _show(job, bar)
                if ended and (child.returncode or job.row()["step"] < job.steps):
                    raise ChildFailedError(f"training {job.name} failed{_last_words(log)}")
                running |= not ended


def run_child(arguments: Sequence[str], log: Path, threads: int = 1) -> None:
    """Run one command to its end; ChildFailedError names its log."""
    with _child(arguments, log, threads) as child:
        if child.wait():
            raise ChildFailedError(f"{arguments[0]} failed{_last_words(log)}")


@contextmanager
def _child(arguments: Sequence[str], log: Path, threads: int) -> Iterator[subprocess.Popen[bytes]]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(threads)}
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "deploy.demo.child", *arguments],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables},
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then stops the child.
        )
    try:
        yield child
    finally:
        _stop(child)


def _stop(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(TIME_TO_SAVE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if child.stdin is not None:
        child.stdin.close()


def _show(job: TrainingJob, bar: tqdm[Any]) -> None:
    row = job.row()
    if "loss" in row:
        bar.set_postfix(loss=f"{row['loss']:.4f}", refresh=False)
    bar.update(int(row["step"]) - bar.n)


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f": {lines[-1].strip()} ({log})" if lines else f" without a word ({log})"
