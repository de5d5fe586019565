"""Several datasets as one: drawn by weight, exact when resumed, and refused where they differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler

import prise
from data.dataset import WindowDataset
from data.formats.zarr_store import DatasetError, DemoStore, Episode, ZarrWriter, open_zarr
from data.mixture import Mixture, Windows, cache_shares, epoch_counts, open_mixture, open_one
from data.spec import DataSpec, Horizons, SpecError
from data.stats import dataset_stats
from policy.checkpoint import CheckpointError
from policy.train import train
from tests.test_remote_store import WINDOWS
from tests.tiny_store import STORE_SPEC, random_episode, write_store
from tests.tiny_training import CONFIG, HORIZONS, SPEC, policy_config, stopped

KEYS = ("rgb", "pose", "wrench")


@pytest.fixture
def stores(tmp_path: Path) -> list[DemoStore]:
    """30 and 120 windows."""
    one = write_store(tmp_path / "one", [10, 20])
    return [one, write_store(tmp_path / "two", [30, 40, 50], seed0=10)]


def windows(stores: Sequence[DemoStore], weights: Sequence[float], cache: int = 2**30) -> Windows:
    return Mixture(stores, weights).windows(WINDOWS, KEYS, cache)


def members(dataset: Windows, epochs: int) -> list[list[int]]:
    sampler = dataset.sampler(0)
    return [list(sampler) for _ in range(epochs)]


def test_windows_are_drawn_by_weight_and_evenly_within_a_dataset(stores: list[DemoStore]) -> None:
    dataset = windows(stores, [2.0, 1.0])
    assert len(dataset) == 150
    drawn = np.bincount(np.concatenate(members(dataset, 6)), minlength=150)
    assert drawn[:30].sum() == 2 * drawn[30:].sum() == 600
    for part in (drawn[:30], drawn[30:]):
        assert part.max() - part.min() <= 1


def test_every_part_of_an_epoch_is_mixed(stores: list[DemoStore]) -> None:
    (order,) = members(windows(stores, [1.0, 1.0]), 1)
    for start in range(0, 150, 50):
        assert 15 <= sum(window < 30 for window in order[start : start + 50]) <= 35


@pytest.mark.parametrize("cache", [2**30, 134_000])
def test_a_mixed_batch_holds_the_windows_of_its_datasets(
    stores: list[DemoStore], cache: int
) -> None:
    dataset = windows(stores, [1.0, 1.0], cache)
    assert dataset.cache_nbytes <= cache
    parts = [WindowDataset(store, WINDOWS) for store in stores]
    for indices in BatchSampler(dataset.sampler(1), 16, drop_last=False):
        batch = dataset.__getitems__(indices)
        for place, index in enumerate(indices):
            window = parts[0][index] if index < 30 else parts[1][index - 30]
            assert torch.equal(batch["action"][place], window["action"])
            assert torch.equal(batch["valid"][place], window["valid"])
            for key in KEYS:
                assert torch.equal(batch["obs"][key][place], window["obs"][key])


@pytest.mark.parametrize("done", [0, 1, 149, 150, 400])
def test_a_mix_resumes_at_any_window(stores: list[DemoStore], done: int) -> None:
    dataset = windows(stores, [0.3, 1.0])

    def endless(epoch: int = 0, position: int = 0) -> Any:
        sampler = dataset.sampler(7)
        sampler.epoch, sampler.position = epoch, position
        while True:
            yield from sampler

    whole = list(islice(endless(), 500))
    assert list(islice(endless(*divmod(done, len(dataset))), 500 - done)) == whole[done:]


def test_keys_are_mapped_by_name(tmp_path: Path, stores: list[DemoStore]) -> None:
    theirs = replace(STORE_SPEC, obs={f"their_{k}": v for k, v in STORE_SPEC.obs.items()})
    write_store(tmp_path / "theirs", [5], theirs)
    rename = {f"their_{key}": key for key in STORE_SPEC.obs}
    entries = [{"path": str(tmp_path / "one")}, {"path": str(tmp_path / "theirs")}]
    with pytest.raises(SpecError, match="no observation 'rgb'"):
        open_mixture({"mix": entries}).check(KEYS)
    mixture = open_mixture({"mix": [entries[0], {**entries[1], "rename": rename}]})
    mixture.check(KEYS)
    np.testing.assert_array_equal(
        mixture.stores[1].read("pose", 0, 5),
        open_zarr(tmp_path / "theirs").read("their_pose", 0, 5),
    )
    with pytest.raises(DatasetError, match="no observation depth to rename"):
        stores[0].renamed({"depth": "x"})
    with pytest.raises(DatasetError, match="pose twice"):
        stores[0].renamed({"rgb": "pose"})


def other(**obs: Any) -> DataSpec:
    return replace(
        STORE_SPEC, obs={**STORE_SPEC.obs, "pose": replace(STORE_SPEC.obs["pose"], **obs)}
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (other(shape=(4,)), r"the shape of observation 'pose' is \(4,\), but \(3,\)"),
        (other(unit="mm"), "the unit of observation 'pose' is 'mm', but 'm'"),
        (other(rate_hz=5.0), "the rate_hz of observation 'pose' is 5.0, but 10.0"),
        (STORE_SPEC.select(["rgb", "wrench"]), r"no observation 'pose' \(it has \['rgb', 'wr"),
        (
            replace(STORE_SPEC, action=replace(STORE_SPEC.action, names=("dy", "dx"))),
            r"the names of its actions are \('dy', 'dx'\), but \('dx', 'dy'\)",
        ),
        (replace(STORE_SPEC, rate_hz=5.0), "its rate is 5 Hz, but 10 Hz"),
    ],
)
def test_what_does_not_fit_is_one_line_that_names_the_dataset(
    tmp_path: Path, stores: list[DemoStore], spec: DataSpec, message: str
) -> None:
    mixture = Mixture([stores[0], write_store(tmp_path / "bad", [5], spec)], [1.0, 1.0])
    with pytest.raises(SpecError, match=message) as caught:
        mixture.windows(WINDOWS, KEYS, 2**30)
    assert "\n" not in str(caught.value)
    assert f"dataset.mix[1] ({tmp_path / 'bad'})" in str(caught.value)


def test_keys_that_a_policy_does_not_see_may_differ(
    tmp_path: Path, stores: list[DemoStore]
) -> None:
    odd = write_store(tmp_path / "odd", [5], other(unit="mm"))
    assert len(Mixture([stores[0], odd], [1.0, 1.0]).windows(WINDOWS, ["rgb"], 2**30)) == 35


def shifted(by: float) -> Callable[[Episode], Episode]:
    return lambda e: replace(e, obs={**e.obs, "pose": e.obs["pose"] + np.float32(by)})


def test_statistics_are_those_of_the_windows_that_are_drawn(tmp_path: Path) -> None:
    for name, episodes, by in (("a", 1, 0.0), ("b", 3, 5.0)):
        with ZarrWriter(tmp_path / name, STORE_SPEC, {}) as writer:
            for seed in range(episodes):
                writer.append(shifted(by)(random_episode(60, seed)))
    stores = [open_zarr(tmp_path / name) for name in ("a", "b")]
    rows = [store.read("pose", 0, store.num_steps) for store in stores]
    drawn = np.concatenate([rows[0].repeat(3, axis=0), rows[1]])  # as often as each other
    stats = Mixture(stores, [1.0, 1.0]).stats(["pose"])["pose"]
    np.testing.assert_allclose(stats.mean, drawn.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats.std, drawn.std(0), rtol=1e-5)
    np.testing.assert_array_equal(stats.min, drawn.min(0))
    np.testing.assert_array_equal(stats.max, drawn.max(0))
    wanted = np.quantile(drawn, 0.01, axis=0, method="inverted_cdf")
    np.testing.assert_allclose(stats.q01, wanted)
    alone = Mixture([stores[0]]).stats(["pose"])["pose"]
    np.testing.assert_array_equal(alone.q99, dataset_stats(stores[0], ["pose"])["pose"].q99)


def test_counts_and_cache_add_up_to_what_there_is() -> None:
    assert epoch_counts(10, [1, 1, 1]).tolist() == [4, 3, 3]
    assert cache_shares([0, 0, 0], [10, 1000, 1000], [1, 1, 2], 310) == [10, 100, 200]
    assert cache_shares([5, 50], [1000, 1000], [1, 1e-9], 105) == [54, 50]
    assert cache_shares([1, 2], [10, 20], [1, 1], 10**6) == [10, 20]
    with pytest.raises(ValueError, match="each dataset needs 55"):
        cache_shares([5, 50], [10, 100], [1, 1], 54)


def test_a_dataset_that_would_never_come_is_refused(stores: list[DemoStore]) -> None:
    with pytest.raises(DatasetError, match="would never come"):
        windows(stores, [1.0, 1e-6])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"path": "x", "wieght": 2.0}, "wieght"),
        ({"weight": 2.0}, "has path"),
        ({"path": "x", "weight": 0}, "above 0"),
        ({"path": "x", "rename": "y"}, "their_key"),
        ("x", "has path"),
    ],
)
def test_a_bad_entry_of_the_mix_is_one_line(entry: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        open_mixture({"mix": [entry]})


def test_commands_that_take_one_dataset_refuse_a_mix(
    stores: list[DemoStore], capsys: pytest.CaptureFixture[str]
) -> None:
    mix = [{"path": str(store.path)} for store in stores]
    with pytest.raises(DatasetError, match="prise train"):
        open_one({"mix": mix})
    assert prise.main(["collect", f"dataset.mix=[{{path: {stores[0].path}}}]"]) == 2
    assert "dataset.mix is for `prise train`" in capsys.readouterr().err


def test_a_mixed_run_that_was_stopped_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    write_store(tmp_path / "a", [10, 15, 12], SPEC)
    write_store(tmp_path / "b", [30, 14], SPEC, seed0=5)
    fs = fsspec.filesystem("memory")
    fs.put(str(tmp_path / "b"), f"/{tmp_path.name}/b", recursive=True)

    def mixture(second: str, weight: float = 3.0) -> Mixture:
        mix = [{"path": str(tmp_path / "a")}, {"path": second, "weight": weight}]
        return open_mixture({"mix": mix})

    config, recipe = replace(CONFIG, steps=12), policy_config()
    here, there = str(tmp_path / "b"), f"memory://{tmp_path.name}/b"
    train(config, recipe, HORIZONS, mixture(here), tmp_path / "whole")
    halted = stopped(config, after=7)
    assert train(halted, recipe, HORIZONS, mixture(there), tmp_path / "run").step == 7
    with pytest.raises(CheckpointError, match="another dataset"):
        train(config, recipe, HORIZONS, mixture(there, 1.0), tmp_path / "run", resume=True)
    train(config, recipe, HORIZONS, mixture(there), tmp_path / "run", resume=True)
    one, two = (tmp_path / run / "last" / "weights.safetensors" for run in ("whole", "run"))
    assert one.read_bytes() == two.read_bytes()


def test_one_dataset_is_trained_on_as_before(stores: list[DemoStore]) -> None:
    alone = Mixture([stores[0]]).windows(Horizons(), KEYS, 2**30)
    assert isinstance(alone, WindowDataset)
    assert Mixture([stores[0]]).identity == str(stores[0].path.resolve())
