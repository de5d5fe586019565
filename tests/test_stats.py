"""Streamed statistics against numpy on everything at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data import stats as stats_module
from data.formats.zarr_store import DatasetError, DemoStore, ZarrWriter, open_zarr
from data.stats import Stats, dataset_stats
from tests.tiny_store import STORE_SPEC, random_episode, write_store

LENGTHS = (700, 5, 900)


def assert_stats_of(got: Stats, rows: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    np.testing.assert_allclose(got.min, rows.min(0))
    np.testing.assert_allclose(got.max, rows.max(0))
    np.testing.assert_allclose(got.mean, rows.mean(0), atol=1e-9)
    np.testing.assert_allclose(got.std, rows.std(0))
    np.testing.assert_allclose(got.q01, np.quantile(rows, 0.01, axis=0))
    np.testing.assert_allclose(got.q99, np.quantile(rows, 0.99, axis=0))


def whole(store: DemoStore, key: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return store.read(key, 0, store.num_steps).astype(np.float64)


def test_stats_equal_numpy_on_all_rows(tmp_path: Path) -> None:
    store = write_store(tmp_path / "d", LENGTHS)
    stats = dataset_stats(store, ["pose", "wrench", "rgb"])
    assert_stats_of(stats["pose"], whole(store, "pose"))
    assert_stats_of(stats["wrench"], whole(store, "wrench").reshape(-1, 2))
    pixels = whole(store, "rgb").reshape(-1, 3)
    np.testing.assert_allclose(stats["rgb"].mean, pixels.mean(0))


def test_action_counts_valid_rows_only(tmp_path: Path) -> None:
    store = write_store(tmp_path / "d", LENGTHS)
    valid = store.read("valid", 0, store.num_steps)
    assert_stats_of(dataset_stats(store)["action"], whole(store, "action")[valid])


def test_all_keys_but_the_images_are_the_default(tmp_path: Path) -> None:
    assert list(dataset_stats(write_store(tmp_path / "d", [5]))) == ["pose", "wrench", "action"]


def test_quantiles_of_a_bounded_reservoir_are_close_and_repeatable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = write_store(tmp_path / "d", LENGTHS)
    monkeypatch.setattr(stats_module, "RESERVOIR", 800)
    got = dataset_stats(store)["wrench"]  # 8025 samples of a unit normal
    np.testing.assert_allclose(got.q99, 2.33, atol=0.35)
    np.testing.assert_allclose(got.q01, -2.33, atol=0.35)
    np.testing.assert_array_equal(got.q01, dataset_stats(store)["wrench"].q01)


def test_a_constant_far_from_zero_has_no_deviation(tmp_path: Path) -> None:
    pose = np.full((2000, 3), 1e6, np.float32)
    episode = random_episode(2000, 0)
    with ZarrWriter(tmp_path / "d", STORE_SPEC, {}) as writer:
        writer.append(replace(episode, obs={**episode.obs, "pose": pose}))
    np.testing.assert_array_equal(dataset_stats(open_zarr(tmp_path / "d"))["pose"].std, 0)


def test_nothing_to_count_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no \\(valid\\) rows"):
        dataset_stats(write_store(tmp_path / "empty", []))
    with ZarrWriter(tmp_path / "d", STORE_SPEC, {}) as writer:
        writer.append(random_episode(9, 0, mistakes=1.1))
    with pytest.raises(DatasetError, match="'action'"):
        dataset_stats(open_zarr(tmp_path / "d"))


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="depth"):
        dataset_stats(write_store(tmp_path / "d", [5]), ["depth"])
