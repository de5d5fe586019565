"""The benches measure what they say, on what a policy really sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import prise
from data.dataset import WindowDataset
from data.formats.zarr_store import DatasetError, open_zarr
from data.results import read_results
from deploy.bench import tick, train_step
from deploy.commands.compose import compose
from envs.pry.env import pry_spec
from tests.tiny_env import TINY_SPEC
from tests.tiny_policy import TINY_HORIZONS, save_tiny_checkpoint, tiny_policy
from tests.tiny_store import write_store


@pytest.fixture
def demos(tmp_path: Path) -> Path:
    return write_store(tmp_path / "demos.zarr", [5, 7], TINY_SPEC).path


def test_bench_sees_what_training_saw(demos: Path) -> None:
    policy = tiny_policy()
    store = open_zarr(demos)
    dataset = WindowDataset(store, TINY_HORIZONS, policy.spec.obs)
    batch = dataset.__getitems__(list(range(12)))
    seen = tick.windows(store, policy, 12)
    for key in policy.spec.obs:
        np.testing.assert_array_equal(np.stack([obs[key] for obs in seen]), batch["obs"][key])


def test_more_rounds_than_demonstrated_ticks_begin_again(demos: Path) -> None:
    seen = tick.windows(open_zarr(demos), tiny_policy(), 14)
    for key, value in seen[0].items():
        np.testing.assert_array_equal(seen[12][key], value)


def test_every_arm_is_measured_in_every_round(demos: Path) -> None:
    policy = tiny_policy()
    observed = tick.windows(open_zarr(demos), policy, 3 + tick.WARM_UP)
    times = tick.measure(policy, observed, rounds=3)
    assert times.keys() == {*tick.PARTS, *tick.CONTROLLERS}
    assert all(len(t) == 3 and (t > 0).all() for t in times.values())
    # A cold plan costs its network evaluations each time: none came from an earlier plan.
    assert times["cold_ddpm"].min() > times["cold_ddim"].max()


def test_ratios_are_those_of_medians_and_lie_in_their_intervals() -> None:
    rng = np.random.default_rng(0)
    medians = {"encode": 4, "denoise": 1, "rti": 6, "cold_ddim": 14, "cold_ddpm": 120}
    times = {name: m + rng.normal(0, 0.1, 101) for name, m in medians.items()}
    for name, m in medians.items():
        times[name] += m - np.median(times[name])
    rows = {row.name: row for row in tick.tick_rows(times, {"threads": 1})}
    assert rows["tick_overhead"].value == pytest.approx(6 / 5)
    assert rows["tick_speedup"].value == pytest.approx(20)
    for name in ("tick_overhead", "tick_speedup"):
        row = rows[name]
        assert row.low is not None
        assert row.high is not None
        assert row.low <= row.value <= row.high


def test_tick_command_writes_percentiles_of_each_controller(
    tmp_path: Path, demos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, out = save_tiny_checkpoint(tmp_path / "tiny"), tmp_path / "out"
    arguments = [f"checkpoint={checkpoint}", f"dataset.path={demos}", f"out={out}", "rounds=2"]
    assert prise.main(["bench", "tick", *arguments]) == 0
    assert "tick_overhead" in capsys.readouterr().out
    ticks = [r for r in read_results(out / "results.json").rows if r.name == "tick_ms"]
    for name in tick.CONTROLLERS:
        values = [r.value for r in ticks if r.context["controller"] == name]
        assert len(values) == 3
        assert values == sorted(values)
    assert {r.context["threads"] for r in ticks} == {1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"checkpoint": None}, "checkpoint=PATH"), ({"rounds": 0}, "rounds"), ({"threads": 0}, "thr")],
)
def test_tick_refuses_what_cannot_be_measured(changes: dict[str, object], message: str) -> None:
    config = {"checkpoint": "x", "rounds": 1, "threads": 1, **changes}
    with pytest.raises(ValueError, match=message):
        tick.run(config)


def test_tick_without_demonstrations_is_explained(tmp_path: Path) -> None:
    config = {"checkpoint": save_tiny_checkpoint(tmp_path / "tiny"), "rounds": 1, "threads": 1}
    with pytest.raises(DatasetError, match=r"none\.zarr"):
        tick.run({**config, "dataset": {"path": str(tmp_path / "none.zarr")}, "out": str(tmp_path)})


def test_step_shares_count_the_second_half_alone() -> None:
    cold = {"load": 9.0, "forward": 9.0, "backward": 9.0}
    warm = {"load": 0.002, "forward": 0.02, "backward": 0.07, "ema": 0.005, "log": 0.003}
    rows = train_step.step_rows([cold, cold, warm, warm], 10, {"batch_size": 4})
    named = {(r.name, r.context.get("part")): r for r in rows}
    assert named["loader_share", None].value == pytest.approx(0.1)
    assert named["step_ms", "all"].value == pytest.approx(100)
    assert named["step_ms", "all"].n == 20


def test_train_command_measures_and_leaves_no_run_behind(tmp_path: Path) -> None:
    demos = write_store(tmp_path / "demos.zarr", [20, 20], pry_spec(32, ())).path
    small = ["denoiser.width=32", "denoiser.num_layers=1", "train.batch_size=4"]
    short = ["steps=6", "train.log_every=2", "train.threads=1"]
    out = f"out={tmp_path}/out"
    config = compose(
        "bench", ["what=train", "encoder=force", f"dataset.path={demos}", *small, *short, out]
    )
    assert train_step.run(config) == 0
    rows = read_results(tmp_path / "out" / "results.json").rows
    share = next(row for row in rows if row.name == "loader_share")
    assert 0 < share.value < 1
    assert share.context["obs"] == "force"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["demos.zarr", "out"]


def test_too_few_training_steps_are_refused() -> None:
    config = compose("bench", ["what=train", "steps=50"])
    with pytest.raises(ValueError, match=r"at least 2 x train\.log_every = 100, got 50"):
        train_step.run(config)
