"""A training process killed at random moments loses no more than it had not saved."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from policy.checkpoint import checkpoint_exists, load_policy, open_checkpoint
from policy.metrics import read_metrics
from tests.e2e.test_train_resume import assert_same_run
from tests.tiny_training import CONFIG, train_tiny, write_demos

ROOT = Path(__file__).parents[2]
STEPS = 400
pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def start(demos: Path, run_dir: Path, *, resume: bool) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.tiny_training", str(demos), str(run_dir), str(STEPS)]
    return subprocess.Popen([*command, "resume"] if resume else command, cwd=ROOT)


def saved_step(run_dir: Path) -> int:
    step: int = open_checkpoint(run_dir / "last").read_state().values["progress"]["step"]
    return step


def kill_after(process: subprocess.Popen[bytes], run_dir: Path, step: int, delay: float) -> None:
    """Kill `delay` seconds after the row of `step` or of a later one was written."""
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        rows = read_metrics(run_dir / "metrics.jsonl")
        if rows and rows[-1]["step"] >= step:
            break
        time.sleep(0.005)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_killed_and_resumed_run_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    demos = write_demos(tmp_path / "demos")
    train_tiny(demos, tmp_path / "whole", replace(CONFIG, steps=STEPS, save_every=10))
    moments = random.Random(time.time_ns())
    run_dir = tmp_path / "run"
    for attempt in range(3):
        step, delay = 100 * attempt + moments.randint(5, 100), moments.uniform(0.0, 0.05)
        kill_after(start(demos, run_dir, resume=attempt > 0), run_dir, step, delay)
        print(f"killed {delay:.3f} s after step {step}, with step {saved_step(run_dir)} saved")
        load_policy(run_dir / "last")
    assert start(demos, run_dir, resume=True).wait() == 0
    assert_same_run(run_dir, tmp_path / "whole")


def test_sigterm_ends_the_process_cleanly_and_saved(tmp_path: Path) -> None:
    demos = write_demos(tmp_path / "demos")
    process = start(demos, tmp_path / "run", resume=False)
    while not checkpoint_exists(tmp_path / "run" / "last"):
        assert process.poll() is None
        time.sleep(0.005)
    process.terminate()
    assert process.wait() == 0
    assert 0 < saved_step(tmp_path / "run") < STEPS
