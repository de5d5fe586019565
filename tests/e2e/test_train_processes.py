"""Two processes, as on two GPUs, train one policy together and resume to the very bits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from policy.checkpoint import open_checkpoint
from tests.e2e.test_train_resume import assert_same_run
from tests.tiny_training import write_demos

ROOT = Path(__file__).parents[2]
STEPS = 12
pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def train_in_two_processes(demos: Path, run_dir: Path, *options: str) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    program = ["-m", "tests.tiny_training", str(demos), str(run_dir), str(STEPS), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, *program], cwd=ROOT, env=environment, check=True, timeout=300)


def test_stopped_and_resumed_pair_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    demos = write_demos(tmp_path / "demos")
    train_in_two_processes(demos, tmp_path / "whole")
    train_in_two_processes(demos, tmp_path / "run", "stop")
    # The processes agree to stop where they log, every five steps.
    state = open_checkpoint(tmp_path / "run" / "last").read_state()
    assert state.values["progress"]["step"] == 10
    assert not torch.equal(*state.tensors["random.noise"])
    train_in_two_processes(demos, tmp_path / "run", "resume")
    assert_same_run(tmp_path / "run", tmp_path / "whole")
