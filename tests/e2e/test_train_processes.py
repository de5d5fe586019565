"""Two processes, as on two GPUs, train one policy as one process would, and any number goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from policy.checkpoint import open_checkpoint
from policy.metrics import read_metrics
from tests.e2e.test_train_resume import assert_same_run
from tests.tiny_training import write_demos

ROOT = Path(__file__).parents[2]
STEPS = 12
pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def train_in(processes: int, demos: Path, run_dir: Path, steps: int, *options: str) -> str:
    """What it wrote to stderr."""
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    program = ["-m", "tests.tiny_training", str(demos), str(run_dir), str(steps), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, *program], cwd=ROOT, env=environment, timeout=300, stderr=subprocess.PIPE
    )
    told = done.stderr.decode()
    assert done.returncode == 0, told
    return told


@pytest.mark.parametrize("how", [["plain"], ["sharded", "rgb"]], ids="-".join)
def test_stopped_and_resumed_pair_equals_the_uninterrupted_one(
    tmp_path: Path, how: list[str]
) -> None:
    demos = write_demos(tmp_path / "demos")
    train_in(2, demos, tmp_path / "whole", STEPS, *how)
    train_in(2, demos, tmp_path / "run", STEPS, *how, "stop")
    # The processes agree to stop where they log, every five steps.
    state = open_checkpoint(tmp_path / "run" / "last").read_state()
    assert state.values["progress"]["step"] == 10
    assert not torch.equal(*state.tensors["random.noise"])
    train_in(2, demos, tmp_path / "run", STEPS, *how, "resume")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One step of one process; `demos` beside it. Not all actions are valid."""
    folder = tmp_path_factory.mktemp("joint")
    train_in(1, write_demos(folder / "demos"), folder / "run", 1, "by_window")
    return folder


@pytest.mark.parametrize("options", [[], ["sharded"]], ids=["plain", "sharded"])
def test_gradients_of_two_processes_are_those_of_the_joint_batch(
    joint: Path, tmp_path: Path, options: list[str]
) -> None:
    """After one step the optimizer's first moment is the gradient, up to a factor."""
    train_in(2, joint / "demos", tmp_path / "run", 1, "by_window", *options)
    runs = (joint / "run", tmp_path / "run")
    one, two = (open_checkpoint(run / "last").read_state().tensors for run in runs)
    moments = [key for key in one if key.endswith(".exp_avg")]
    assert len(moments) > 10
    for key in moments:
        torch.testing.assert_close(two[key], one[key], rtol=1e-4, atol=1e-8)
    ours, theirs = (read_metrics(run / "metrics.jsonl")[0] for run in runs)
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
    assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-5)


@pytest.mark.parametrize(
    ("before", "after", "how"),
    [
        (2, 1, ["plain"]),
        (1, 2, ["plain"]),
        (2, 1, ["sharded", "rgb"]),  # weights of cameras lie channels-last
        (1, 2, ["sharded", "rgb"]),
    ],
    ids=["2-1-plain", "1-2-plain", "2-1-sharded", "1-2-sharded"],
)
def test_a_run_goes_on_in_another_number_of_processes(
    tmp_path: Path, before: int, after: int, how: list[str]
) -> None:
    demos, run_dir = write_demos(tmp_path / "demos"), tmp_path / "run"
    train_in(before, demos, run_dir, 10, *how)
    saved = open_checkpoint(run_dir / "last")
    state, weights = saved.read_state(), saved.read_weights()
    told = train_in(after, demos, run_dir, STEPS, *how, "resume", "witness")
    assert f"the run had {before} processes, now there are {after}: random draws start anew" in told
    resumed = open_checkpoint(run_dir / "resumed")
    resumed_state, resumed_weights = resumed.read_state(), resumed.read_weights()
    assert_same_tensors(resumed_weights, weights)
    kept = [key for key in state.tensors if not key.startswith("random.")]
    assert_same_tensors({key: resumed_state.tensors[key] for key in kept}, state.tensors)
    assert resumed_state.values == {**state.values, "processes": after}
    end = open_checkpoint(run_dir / "last").read_state()
    assert (end.values["progress"]["step"], end.values["processes"]) == (STEPS, after)


def assert_same_tensors(
    got: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]
) -> None:
    for key, value in got.items():
        assert torch.equal(value, wanted[key]), key
