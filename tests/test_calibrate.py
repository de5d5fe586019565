"""`prise calibrate` from end to end on the tiny task, and what reads its file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import prise
from data.formats.zarr_store import open_zarr
from data.mixture import fingerprint
from data.results import read_results
from envs.history import ObsHistory
from policy.calibration import CALIBRATION, read_calibration
from policy.checkpoint import load_policy, open_checkpoint, save_checkpoint
from policy.moments import choose_ticks, episodes_of, read_moments
from tests.tiny_env import TINY_SPEC, tiny_env
from tests.tiny_policy import TINY_CONFIG, TINY_HORIZONS, save_tiny_checkpoint, tiny_policy
from tests.tiny_store import write_store

SMALL = ("moments=12", "exec_horizons=[1,4]", "nfes=[1,2]", "samples=4", "cold_steps=2")


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrate")
    return write_store(folder / "demos.zarr", (10, 15, 12, 13), TINY_SPEC).path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, demos: Path) -> Path:
    folder = tmp_path_factory.mktemp("calibrate")
    path = save_tiny_checkpoint(folder / "last")
    assert calibrate(path, demos, folder / "out") == 0
    return path


def calibrate(checkpoint: Path, demos: Path, out: Path, *more: str) -> int:
    arguments = [f"checkpoint={checkpoint}", f"dataset.path={demos}", f"out={out}", *SMALL, *more]
    return prise.main(["calibrate", *arguments])


def test_calibration_lies_in_a_checkpoint_that_is_still_whole(checkpoint: Path) -> None:
    policy = load_policy(checkpoint)
    calibration = read_calibration(policy)
    assert calibration.weights == open_checkpoint(checkpoint).digests["weights.safetensors"]
    assert calibration.data["split"] == "heldout"
    known = {(choice.exec_horizon, choice.nfe) for choice in calibration.choices}
    assert known == {(1, 1), (1, 2), (4, 1), (4, 2)}
    assert not [path for path in checkpoint.iterdir() if path.name.endswith(".new")]
    assert prise.main(["inspect", str(checkpoint)]) == 0


def test_table_and_picture_say_why(checkpoint: Path, tmp_path: Path, demos: Path) -> None:
    assert calibrate(checkpoint, demos, tmp_path) == 0
    rows = read_results(tmp_path / "results.json").rows
    levels = [row for row in rows if row.name == "start_level"]
    assert len(levels) == 4
    assert all(row.context["because"] for row in levels)
    assert {row.context["exec_horizon"] for row in rows if row.name == "shift_error"} == {1, 4}
    assert (tmp_path / "calibrate.png").stat().st_size > 10_000


def test_same_seed_gives_the_same_calibration(
    checkpoint: Path, tmp_path: Path, demos: Path
) -> None:
    first = (checkpoint / CALIBRATION).read_text()
    assert calibrate(checkpoint, demos, tmp_path) == 0
    assert (checkpoint / CALIBRATION).read_text() == first


@pytest.mark.parametrize("name", ["rti", "adaptive"])
def test_controllers_take_the_estimated_level(checkpoint: Path, name: str) -> None:
    policy = load_policy(checkpoint)
    level = read_calibration(policy).level(1, 1)
    key = {"rti": "start_level", "adaptive": "probe_level"}[name]
    made = [prise.make_controller(policy, name, **{key: word}) for word in ("estimated", level)]
    env = tiny_env()()
    history = ObsHistory(policy.spec, policy.horizons)
    history.push(env.reset(seed=0)[0])
    for tick in range(2):
        one, two = (c.update(history.windowed(), 0.1 * tick).actions for c in made)
        np.testing.assert_array_equal(one, two)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert prise.main(arguments) == 2
    lines = [
        line for line in capsys.readouterr().err.splitlines() if not line.startswith("calibrate: ")
    ]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("choice", [["controller.start_level=estimated"], ["controller=adaptive"]])
def test_checkpoint_without_calibration_names_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], choice: list[str]
) -> None:
    path = save_tiny_checkpoint(tmp_path / "last")
    line = said(capsys, "eval", f"checkpoint={path}", *choice)
    assert f"has no calibration; run `prise calibrate checkpoint={path} dataset.path=" in line


def test_other_words_than_estimated_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    line = said(capsys, "eval", "checkpoint=x", "controller.start_level=guessed")
    assert "controller.start_level must be a number, got 'guessed'" in line


def test_calibration_of_other_weights_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    policy = tiny_policy(seed=1)
    other = tmp_path / "last"
    save_checkpoint(other, TINY_CONFIG, policy.spec, TINY_HORIZONS, policy.state_dict())
    shutil.copy(checkpoint / CALIBRATION, other / CALIBRATION)
    with pytest.raises(ValueError, match="measured on other weights; run `prise calibrate"):
        read_calibration(load_policy(other))


def test_damaged_calibration_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(checkpoint, tmp_path / "last")
    raw: dict[str, Any] = json.loads((copy / CALIBRATION).read_text())
    for text, wanted in (("{", "damaged"), (json.dumps(raw | {"schema_version": 0}), "version")):
        (copy / CALIBRATION).write_text(text)
        with pytest.raises(ValueError, match=wanted):
            read_calibration(load_policy(copy))


def test_saving_the_checkpoint_again_removes_its_calibration(
    checkpoint: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(checkpoint, tmp_path / "last")
    assert save_tiny_checkpoint(copy) == copy
    assert not (copy / CALIBRATION).exists()


def test_held_out_are_the_episodes_behind_those_of_the_training(demos: Path) -> None:
    store = open_zarr(demos)
    count = store.num_episodes
    assert episodes_of(store, "heldout", None) == range(count)
    assert episodes_of(store, "heldout", fingerprint(store, 2)) == range(2, count)
    assert episodes_of(store, "training", fingerprint(store, 2)) == range(2)
    other = {**fingerprint(store, 2), "digest": "of others"}
    assert episodes_of(store, "heldout", other) == range(count)
    with pytest.raises(ValueError, match=r"trained on all .* split=training"):
        episodes_of(store, "heldout", fingerprint(store))
    with pytest.raises(ValueError, match="split must be"):
        episodes_of(store, "half", None)


def test_moments_have_their_history_in_their_own_episode(demos: Path) -> None:
    store, policy = open_zarr(demos), tiny_policy()
    episodes = range(1, store.num_episodes)
    ticks = choose_ticks(store, episodes, 4, 10, seed=0)
    starts = np.r_[0, store.episode_ends[:-1]]
    of = np.searchsorted(store.episode_ends, ticks, side="right")
    assert np.all(ticks - 4 >= starts[of])
    assert set(of) <= set(episodes)
    moments = read_moments(policy, store, ticks, 4)
    earlier = read_moments(policy, store, ticks - 3, 1)
    assert moments.contexts.shape[:2] == (5, 10)
    np.testing.assert_allclose(moments.contexts[3], earlier.contexts[0], atol=1e-5)
    assert moments.wrench_rates is not None


def test_too_few_moments_are_refused(
    checkpoint: Path, tmp_path: Path, demos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(checkpoint, demos, tmp_path, "moments=100000") == 2
    assert "wanted 100000; collect more or lower `moments`" in capsys.readouterr().err
