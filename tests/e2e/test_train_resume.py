"""A run that was stopped and resumed ends with the very bits of one that was not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from policy.checkpoint import open_checkpoint
from policy.config import TrainConfig
from policy.metrics import read_metrics
from policy.train import train
from tests.tiny_training import (
    CONFIG,
    HORIZONS,
    STEPS_PER_EPOCH,
    policy_config,
    stopped,
    write_demos,
)

# Images are cropped at random: draws from torch's default generator, beside the policy's noise.
POLICY = policy_config("pose", "rgb")


def run(demos: Path, run_dir: Path, config: TrainConfig, resume: bool = False) -> None:
    train(config, POLICY, HORIZONS, demos, run_dir, resume=resume)


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demos(tmp_path_factory.mktemp("demos") / "demos")


@pytest.fixture(scope="module")
def uninterrupted(demos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    run(demos, run_dir, CONFIG)
    return run_dir


def assert_same_run(got: Path, wanted: Path) -> None:
    """Averaged weights, weights, optimizer state, random generators, progress and logged rows."""
    a, b = open_checkpoint(got / "last"), open_checkpoint(wanted / "last")
    state_a, state_b = a.read_state(), b.read_state()
    for ours, theirs in ((a.read_weights(), b.read_weights()), (state_a.tensors, state_b.tensors)):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            # By bytes: a NaN that stands for "no cached draw" equals itself.
            same = ours[key].numpy().tobytes() == value.numpy().tobytes()
            assert same, key
    # Compared first, asserted then: a diff of thousands of numbers can take pytest many minutes.
    same_values, same_rows = state_a.values == state_b.values, rows(got) == rows(wanted)
    assert same_values, "random states or progress"
    assert same_rows, "logged rows"


def rows(run_dir: Path) -> list[dict[str, Any]]:
    found = read_metrics(run_dir / "metrics.jsonl")
    return [{key: row[key] for key in ("step", "loss", "grad_norm", "lr")} for row in found]


@pytest.mark.parametrize("after", [1, STEPS_PER_EPOCH, 7, 10, 19])
def test_stopped_and_resumed_run_equals_the_uninterrupted_one(
    demos: Path, uninterrupted: Path, tmp_path: Path, after: int
) -> None:
    run(demos, tmp_path / "run", stopped(CONFIG, after))
    assert (
        open_checkpoint(tmp_path / "run" / "last").read_state().values["progress"]["step"] == after
    )
    # What a new process would start with is not what the old one ended with.
    torch.manual_seed(12345)
    run(demos, tmp_path / "run", CONFIG, resume=True)
    assert_same_run(tmp_path / "run", uninterrupted)


def test_run_stopped_in_every_third_step_equals_the_uninterrupted_one(
    demos: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    for after in range(3, CONFIG.steps, 3):
        run(demos, tmp_path / "run", stopped(CONFIG, after), resume=after > 3)
    run(demos, tmp_path / "run", CONFIG, resume=True)
    assert_same_run(tmp_path / "run", uninterrupted)


def test_optimizer_and_random_state_matter_for_that(
    demos: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    """The comparison above is sharp: one changed draw shows in the weights."""
    run(demos, tmp_path / "run", replace(CONFIG, seed=1))
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "run", uninterrupted)


@pytest.mark.slow
def test_loader_processes_change_neither_the_weights_nor_resuming(
    demos: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    config = replace(CONFIG, num_workers=1)
    run(demos, tmp_path / "run", stopped(config, 7))
    run(demos, tmp_path / "run", config, resume=True)
    assert_same_run(tmp_path / "run", uninterrupted)
