from __future__ import annotations

import json
import logging
import math
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from data.formats.zarr_store import DatasetError
from data.spec import Horizons, SpecError
from policy.checkpoint import CheckpointError, load_policy, open_checkpoint
from policy.metrics import read_metrics
from policy.train import DivergedError, train
from tests.tiny_training import (
    CONFIG,
    HORIZONS,
    policy_config,
    stopped,
    train_tiny,
    write_demos,
)

SHORT = replace(CONFIG, steps=6, log_every=2)


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demos(tmp_path_factory.mktemp("demos") / "demos")


class Scores:
    """An evaluator with the scores given; remembers which step it was shown."""

    def __init__(self, *scores: float) -> None:
        self.scores = list(scores)
        self.steps: list[int] = []

    def __call__(self, checkpoint: Path) -> Mapping[str, float]:
        torch.rand(5)
        self.steps.append(saved_step(checkpoint))
        return {"success": self.scores.pop(0), "peak_force_n": 12.0}


def saved_step(checkpoint: Path) -> int:
    step: int = open_checkpoint(checkpoint).read_state().values["progress"]["step"]
    return step


def weights(path: Path) -> dict[str, torch.Tensor]:
    return open_checkpoint(path).read_weights()


# What is refused, before any data is read


def test_misspelt_policy_key_fails_before_the_data_is_read(demos: Path, tmp_path: Path) -> None:
    misspelt = policy_config(hiden=3)
    with pytest.raises(ValueError, match="hiden"):
        train(SHORT, misspelt, HORIZONS, demos, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_policy_that_wants_what_the_data_lacks_is_refused(demos: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"'wrench'.*the data has \['goal', 'pose', 'rgb'\]"):
        train(SHORT, policy_config("pose", "wrench"), HORIZONS, demos, tmp_path / "run")


def test_component_that_is_no_policy_is_refused(demos: Path, tmp_path: Path) -> None:
    config = {"_target_": "tests.tiny_training.Nothing"}
    with pytest.raises(ValueError, match="refused"):
        train(SHORT, config, HORIZONS, demos, tmp_path / "run")


def test_missing_dataset_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere"):
        train_tiny(tmp_path / "nowhere", tmp_path / "run", SHORT)


def test_batch_larger_than_the_dataset_is_refused(demos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at most the 75 windows"):
        train_tiny(demos, tmp_path / "run", replace(SHORT, batch_size=76))
    # Nothing stands in the way of the next try.
    train_tiny(demos, tmp_path / "run", SHORT)


def test_run_that_exists_is_not_overwritten(demos: Path, tmp_path: Path) -> None:
    train_tiny(demos, tmp_path / "run", SHORT)
    with pytest.raises(CheckpointError, match=r"holds a run already; go on with it by resume=true"):
        train_tiny(demos, tmp_path / "run", SHORT)


def test_resuming_nothing_is_refused(demos: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        train_tiny(demos, tmp_path / "run", SHORT, resume=True)


def test_resuming_with_another_policy_or_dataset_is_refused(demos: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    train_tiny(demos, run_dir, SHORT)
    with pytest.raises(CheckpointError, match="another policy"):
        train(SHORT, policy_config("pose"), HORIZONS, demos, run_dir, resume=True)
    with pytest.raises(CheckpointError, match=r"another horizons \(obs: 2 -> 1\)"):
        train(SHORT, policy_config(), Horizons(1, 4, 4), demos, run_dir, resume=True)
    other = write_demos(tmp_path / "other", lengths=[30, 45])
    with pytest.raises(CheckpointError, match=r"another dataset .*episodes: 6 -> 2"):
        train_tiny(other, run_dir, SHORT, resume=True)


# Training


def test_policy_learns_demonstrations_by_heart(demos: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, steps=150, lr=3e-3, log_every=10)
    train_tiny(demos, tmp_path / "run", config)
    losses = [row["loss"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert losses[-1] < 0.75 * losses[0]


def test_run_leaves_a_loadable_checkpoint_rows_and_a_summary(demos: Path, tmp_path: Path) -> None:
    summary = train_tiny(demos, tmp_path / "run", SHORT)
    assert (summary.step, summary.interrupted) == (6, False)
    assert summary.checkpoint == tmp_path / "run" / "last"
    load_policy(summary.checkpoint)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert rows[-1]["loss"] == summary.loss
    assert rows[0].keys() >= {"loss", "grad_norm", "lr", "timing"}
    assert 0 < summary.shares["overhead"] < 1


def test_deployed_weights_are_the_average_and_not_the_last_ones(
    demos: Path, tmp_path: Path
) -> None:
    train_tiny(demos, tmp_path / "run", SHORT)
    checkpoint = open_checkpoint(tmp_path / "run" / "last")
    raw, average = checkpoint.read_state().tensors, checkpoint.read_weights()
    name = "denoiser.action_out.weight"
    assert not torch.equal(raw[f"model.{name}"], average[name])


def test_bf16_trains_with_float32_weights(demos: Path, tmp_path: Path) -> None:
    # accelerate keeps the precision of the first run of a process.
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        train_tiny(demos, tmp_path / "bf16", replace(SHORT, mixed_precision="bf16"))
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    train_tiny(demos, tmp_path / "full", SHORT)
    half, full = weights(tmp_path / "bf16" / "last"), weights(tmp_path / "full" / "last")
    name = "denoiser.action_out.weight"
    assert half[name].dtype == torch.float32
    assert not torch.equal(half[name], full[name])
    assert torch.allclose(half[name], full[name], atol=1e-3)


def test_same_seed_gives_the_same_weights_and_another_seed_others(
    demos: Path, tmp_path: Path
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train_tiny(demos, tmp_path / name, replace(SHORT, seed=seed))
    a, b, c = (weights(tmp_path / name / "last") for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)


def test_statistics_are_computed_once_per_folder_and_dataset(demos: Path, tmp_path: Path) -> None:
    train_tiny(demos, tmp_path / "run", SHORT)
    cached = tmp_path / "run" / "stats.json"
    content = json.loads(cached.read_text())
    assert content["stats"].keys() == {"pose", "goal", "action"}
    before = cached.stat().st_mtime_ns
    (tmp_path / "run" / "last").rename(tmp_path / "first")
    train_tiny(demos, tmp_path / "run", SHORT)
    assert cached.stat().st_mtime_ns == before
    first, second = weights(tmp_path / "first"), weights(tmp_path / "run" / "last")
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_checkpoint(
    demos: Path, tmp_path: Path
) -> None:
    config = replace(SHORT, steps=40, lr=1e30, warmup_steps=0, clip_norm=0.0)
    with pytest.raises(DivergedError, match=r"not finite; .*last holds step 0\. Lower train\.lr"):
        train_tiny(demos, tmp_path / "run", config)
    kept = weights(tmp_path / "run" / "last")
    assert all(bool(value.isfinite().all()) for value in kept.values())


# Evaluation


def test_best_is_the_later_one_of_the_highest_success(demos: Path, tmp_path: Path) -> None:
    scores = Scores(0.5, 0.9, 0.9, 0.2)
    config = replace(CONFIG, eval_every=5)
    summary = train_tiny(demos, tmp_path / "run", config, evaluator=scores)
    assert scores.steps == [5, 10, 15, 20]
    assert (summary.best_success, summary.best_step) == (0.9, 15)
    assert summary.checkpoint == tmp_path / "run" / "best"
    # What best/ holds is what an own run of 15 steps, with the schedule of 20, would.
    train_tiny(demos, tmp_path / "own", stopped(CONFIG, after=15))
    best, own = weights(tmp_path / "run" / "best"), weights(tmp_path / "own" / "last")
    assert all(torch.equal(best[key], own[key]) for key in own)


def test_evaluation_rows_stand_in_the_metrics(demos: Path, tmp_path: Path) -> None:
    config = replace(SHORT, eval_every=4)
    train_tiny(demos, tmp_path / "run", config, evaluator=Scores(0.5, 0.7))
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    found = [(row["step"], row["eval"]["success"]) for row in rows if "eval" in row]
    # Every fourth step and the last one.
    assert found == [(4, 0.5), (6, 0.7)]


def test_evaluator_and_how_often_it_is_asked_do_not_change_the_weights(
    demos: Path, tmp_path: Path
) -> None:
    train_tiny(demos, tmp_path / "without", SHORT)
    config = replace(SHORT, eval_every=2, log_every=1, save_every=1)
    train_tiny(demos, tmp_path / "with", config, evaluator=Scores(0.1, 0.2, 0.3))
    plain, evaluated = weights(tmp_path / "without" / "last"), weights(tmp_path / "with" / "last")
    assert all(torch.equal(plain[key], evaluated[key]) for key in plain)


def test_evaluator_without_success_is_refused(demos: Path, tmp_path: Path) -> None:
    config = replace(SHORT, eval_every=2)
    with pytest.raises(ValueError, match=r"the evaluator gave \['reward'\]"):
        train_tiny(demos, tmp_path / "run", config, evaluator=lambda _: {"reward": 1.0})


def test_signal_during_an_evaluation_ends_it_at_once_and_it_is_done_on_resume(
    demos: Path, tmp_path: Path
) -> None:
    def interrupted(_: Path) -> Mapping[str, float]:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the evaluation went on")

    config = replace(SHORT, eval_every=4)
    summary = train_tiny(demos, tmp_path / "run", config, evaluator=interrupted)
    assert (summary.step, summary.interrupted, summary.best_step) == (4, True, None)
    scores = Scores(0.5, 0.4)
    resumed = train_tiny(demos, tmp_path / "run", config, evaluator=scores, resume=True)
    assert scores.steps == [4, 6]
    assert resumed.best_step == 4


# Interruption


def test_stop_says_how_to_go_on_and_puts_the_signal_handlers_back(
    demos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    summary = train_tiny(demos, tmp_path / "run", stopped(CONFIG, after=7))
    assert (summary.step, summary.interrupted) == (7, True)
    assert saved_step(tmp_path / "run" / "last") == 7
    assert "stopped after step 7 of 20" in caplog.text
    assert "resume=true" in caplog.text
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_resuming_with_a_setting_that_matters_warns(
    demos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train_tiny(demos, tmp_path / "run", stopped(CONFIG, after=7))
    caplog.clear()
    train_tiny(demos, tmp_path / "run", replace(CONFIG, lr=1e-4, log_every=3), resume=True)
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "lr: 0.0003 -> 0.0001" in warning
    assert "log_every" not in warning


def test_resuming_a_finished_run_changes_nothing(demos: Path, tmp_path: Path) -> None:
    train_tiny(demos, tmp_path / "run", SHORT)
    before = (tmp_path / "run" / "last" / "manifest.json").read_bytes()
    summary = train_tiny(demos, tmp_path / "run", SHORT, resume=True)
    assert summary.step == 6
    assert not math.isnan(summary.loss)
    assert (tmp_path / "run" / "last" / "manifest.json").read_bytes() == before
