"""The arithmetic of many machines, and the measurement that it starts from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import prise
from data.results import read_results
from deploy.bench.scale import Parts, Scale, scaled

PARTS = Parts(
    episode_core_s=3.6,
    write_s=0.036,
    episode_bytes=2e6,
    episode_windows=100,
    windows_per_s=500,
    weights_bytes=4e6,
)
SCALE = Scale(episodes=1000, cores=10, gpus=4, epochs=3, gpu_speedup=2.0, efficiency=0.5)


def test_the_arithmetic_is_that_of_the_page() -> None:
    values = {part: value for part, (value, _) in scaled(PARTS, SCALE, batch_size=50).items()}
    assert values == pytest.approx(
        {
            "collect_core_hours": 1.0,  # 1000 x 3.6 s
            "write_hours": 0.01,
            "collect_hours": 0.1,
            "storage": 0.002,  # 1000 x 2 MB
            "epoch_gpu_hours": 100_000 / 500 / 3600,  # 1e5 windows, 500 x 2 x 0.5 a second
            "train_hours": 3 * 100_000 / (4 * 500) / 3600,
            "dataset_reads": 2000 / 50,  # 2000 MB in an epoch of 50 s
            "gradient_traffic": 2 * 4 * 10,  # 8 MB, ten steps a second
        }
    )


def test_one_machine_as_fast_as_this_one_takes_what_was_measured() -> None:
    alone = Scale(episodes=1, cores=1, gpus=1, epochs=1, gpu_speedup=1.0, efficiency=1.0)
    values = scaled(PARTS, alone, batch_size=50)
    assert values["collect_hours"][0] * 3600 == pytest.approx(PARTS.episode_core_s)
    assert values["train_hours"][0] * 3600 == pytest.approx(100 / 500)


def test_more_cores_than_the_writer_can_follow_do_not_help() -> None:
    many = scaled(PARTS, replace(SCALE, cores=100_000), batch_size=50)
    assert many["collect_hours"] == many["write_hours"]


def test_nothing_of_something_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scale.gpus must be above 0, got 0\."):
        replace(SCALE, gpus=0)


@pytest.mark.slow
@pytest.mark.e2e
def test_bench_scale_measures_collecting_and_training(tmp_path: Path) -> None:
    few = ["episodes=2", "steps=4", "train.log_every=2", "train.batch_size=8", "train.threads=1"]
    small = ["encoder=force", "denoiser.width=32", "denoiser.num_layers=1"]
    blind = ["env.kwargs.cameras=[]", "env.kwargs.image_size=1"]
    assert prise.main(["bench", "scale", *few, *small, *blind, f"out={tmp_path}"]) == 0
    rows = read_results(tmp_path / "results.json").rows
    assert [row.name for row in rows[:2]] == ["episode_core_s", "episode_write_s"]
    assert [row.name for row in rows[2:4]] == ["episode_mb", "windows_per_s"]
    assert {row.context["gpus"] for row in rows[4:]} == {64}
    assert all(row.value > 0 for row in rows)
