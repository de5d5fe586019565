from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from policy.metrics import MetricsLog, StepTimer, read_metrics


def write_rows(run_dir: Path, start_step: int, steps: list[int]) -> None:
    with MetricsLog(run_dir, start_step) as log:
        for step in steps:
            log.write(step, {"loss": step / 10, "timing": {"load": 0.5}})


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    write_rows(tmp_path, 0, [5, 10])
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert rows[1] == {"step": 10, "loss": 1.0, "timing": {"load": 0.5}}


def test_rows_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    with MetricsLog(tmp_path) as log:
        log.write(1, {"loss": 0.1})
        assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 0.1}]


def test_resumed_log_holds_each_step_once(tmp_path: Path) -> None:
    write_rows(tmp_path, 0, [5, 10, 15])
    write_rows(tmp_path, 10, [15, 20])
    steps = [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")]
    assert steps == [5, 10, 15, 20]


def test_row_cut_short_by_a_kill_is_dropped(tmp_path: Path) -> None:
    write_rows(tmp_path, 0, [5])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 10})[:-3])
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1
    write_rows(tmp_path, 5, [10])
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [5, 10]


def test_curves_are_written_for_tensorboard(tmp_path: Path) -> None:
    write_rows(tmp_path, 0, [5])
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"timing/load" in content
    assert b"loss" in content


def test_no_file_means_no_rows(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_laps_book_time_to_the_part_that_ended() -> None:
    timer = StepTimer()
    time.sleep(0.02)
    timer.lap("load")
    timer.lap("forward")
    interval = timer.take_interval()
    assert interval["load"] >= 0.02 > interval["forward"]
    assert sum(timer.take_interval().values()) == 0


def test_shares_of_training_parts_sum_to_one_and_leave_out_saves_and_evaluations() -> None:
    timer = StepTimer()
    for part in ("load", "forward", "eval", "backward", "save", "log"):
        time.sleep(0.002)
        timer.lap(part)
    shares = timer.shares()
    overhead = shares.pop("overhead")
    assert "eval" not in shares
    assert sum(shares.values()) == pytest.approx(1)
    assert overhead == pytest.approx(shares["load"] + shares["ema"] + shares["log"])
