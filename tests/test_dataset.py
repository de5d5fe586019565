"""Batches of windows: right, bounded in memory, shuffled and resumable."""

from __future__ import annotations

import functools
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader

from data.cache import ChunkCache
from data.dataset import Batch, BlockShuffleSampler, WindowDataset, already_collated
from data.formats.zarr_store import DatasetError, DemoStore, Episode
from data.spec import Horizons, SpecError
from tests.tiny_store import write_store

HORIZONS = Horizons(obs=2, pred=4, window=12)
LENGTHS = (40, 33, 1, 70, 64, 90, 12, 55)
SMALL_CACHE = 76_000  # one chunk of each small key, and 5 of the 12 of the images


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> DemoStore:
    return write_store(tmp_path_factory.mktemp("store") / "d", LENGTHS)


@functools.cache
def episode_of(store: DemoStore, index: int) -> Episode:
    return store.episode(index)


def assert_right(store: DemoStore, ticks: list[int], batch: Batch) -> None:
    """Every window against the episode it comes from, row by row."""
    for place, tick in enumerate(ticks):
        index = int(np.searchsorted(store.episode_ends, tick, side="right"))
        episode = episode_of(store, index)
        t, last = tick - int(store.episode_starts[index]), len(episode) - 1
        rows = [max(t - 1, 0), t]
        for key in ("rgb", "pose"):
            np.testing.assert_array_equal(batch["obs"][key][place], episode.obs[key][rows])
        samples = episode.obs["wrench"].reshape(-1, 2)
        wanted = [max(s, 0) for s in range((t + 1) * 5 - 12, (t + 1) * 5)]
        np.testing.assert_array_equal(batch["obs"]["wrench"][place], samples[wanted])
        ahead = [min(t + i, last) for i in range(4)]
        np.testing.assert_array_equal(batch["action"][place], episode.action[ahead])
        np.testing.assert_array_equal(batch["valid"][place], episode.valid[ahead])


@pytest.mark.parametrize("cache_bytes", [2**30, SMALL_CACHE])
def test_every_window_is_right_whatever_the_cache(store: DemoStore, cache_bytes: int) -> None:
    dataset = WindowDataset(store, HORIZONS, cache_bytes=cache_bytes)
    order = np.random.default_rng(0).permutation(len(dataset))
    for start in range(0, len(order), 64):
        ticks = order[start : start + 64].tolist()
        assert_right(store, ticks, dataset.__getitems__(ticks))


def test_a_batch_has_the_shapes_and_types_of_the_contract(store: DemoStore) -> None:
    batch = WindowDataset(store, HORIZONS).__getitems__([0, 5, 5])
    shapes = {key: (tuple(v.shape), v.dtype) for key, v in batch["obs"].items()}
    assert shapes == {
        "rgb": ((3, 2, 4, 6, 3), torch.uint8),
        "pose": ((3, 2, 3), torch.float32),
        "wrench": ((3, 12, 2), torch.float32),
    }
    assert (batch["action"].shape, batch["action"].dtype) == ((3, 4, 2), torch.float32)
    assert (batch["valid"].shape, batch["valid"].dtype) == ((3, 4), torch.bool)


def test_one_window_is_one_row_of_a_batch(store: DemoStore) -> None:
    dataset = WindowDataset(store, HORIZONS)
    one, batch = dataset[7], dataset.__getitems__([7])
    assert torch.equal(one["obs"]["rgb"], batch["obs"]["rgb"][0])
    assert torch.equal(one["action"], batch["action"][0])
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_only_the_keys_asked_for_are_read(store: DemoStore) -> None:
    dataset = WindowDataset(store, HORIZONS, keys=["pose"])
    assert list(dataset[0]["obs"]) == ["pose"]
    assert list(dataset.spec.obs) == ["pose"]
    with pytest.raises(SpecError, match="depth"):
        WindowDataset(store, HORIZONS, keys=["depth"])


def test_windows_that_start_with_a_mistake_can_be_left_out(store: DemoStore) -> None:
    dataset = WindowDataset(store, HORIZONS, labelled_only=True)
    valid = store.read("valid", 0, store.num_steps)
    assert len(dataset) == valid.sum()
    assert dataset.__getitems__(range(len(dataset)))["valid"][:, 0].all()
    assert sorted(BlockShuffleSampler(dataset)) == list(range(len(dataset)))


def test_the_ends_of_demonstrations_can_come_more_often(store: DemoStore) -> None:
    dataset = WindowDataset(store, HORIZONS, end_ticks=2, end_weight=3)
    lengths = np.diff(store.episode_ends, prepend=0)
    assert len(dataset) == store.num_steps + int(np.minimum(lengths, 2).sum()) * (3 - 1)
    batch = dataset.__getitems__(range(len(dataset)))
    starts = batch["action"][:, 0]
    for end in store.episode_ends[lengths > 2]:
        for row, times in ((end - 1, 3), (end - 2, 3), (end - 3, 1)):
            wanted = torch.from_numpy(store.read("action", row, row + 1)[0])
            assert int((starts == wanted).all(dim=1).sum()) == times
    assert sorted(BlockShuffleSampler(dataset)) == list(range(len(dataset)))


def test_batches_are_the_callers_to_change(store: DemoStore) -> None:
    dataset = WindowDataset(store, HORIZONS)
    dataset[0]["obs"]["rgb"].zero_()
    assert_right(store, [0], dataset.__getitems__([0]))


def test_memory_is_bounded_and_chunks_are_decoded_about_once_an_epoch(store: DemoStore) -> None:
    dataset = WindowDataset(store, HORIZONS, cache_bytes=SMALL_CACHE)
    rgb = dataset._caches["rgb"]
    assert dataset.cache_nbytes <= SMALL_CACHE
    assert rgb.num_slots < 12
    for index in BatchSampler(BlockShuffleSampler(dataset), 16, drop_last=False):
        dataset.__getitems__(index)
    in_blocks, rgb.misses = rgb.misses, 0
    for index in BatchSampler(torch.randperm(len(dataset)).tolist(), 16, drop_last=False):
        dataset.__getitems__(index)
    assert in_blocks < 2 * 12
    assert rgb.misses > 4 * in_blocks


def test_a_cache_that_holds_all_decodes_each_chunk_once(store: DemoStore) -> None:
    dataset = WindowDataset(store, HORIZONS)
    for _ in range(3):
        dataset.__getitems__(range(len(dataset)))
    assert dataset._caches["rgb"].misses == 12


def test_a_cache_too_small_for_an_episode_is_an_error(store: DemoStore) -> None:
    with pytest.raises(ValueError, match="cache_bytes is 1000"):
        WindowDataset(store, HORIZONS, cache_bytes=1000)


def test_a_chunk_that_cannot_be_read_is_not_taken_for_read(tmp_path: Path) -> None:
    store = write_store(tmp_path / "d", LENGTHS)
    cache = ChunkCache(store, "rgb", 1)
    first = cache.take(np.array([3]))
    chunk = tmp_path / "d/data/rgb/c.1.0.0.0"
    good = chunk.read_bytes()
    chunk.write_bytes(good[:40])
    for _ in range(2):
        with pytest.raises(DatasetError):
            cache.take(np.array([40]))
    np.testing.assert_array_equal(cache.take(np.array([3])), first)
    chunk.write_bytes(good)
    np.testing.assert_array_equal(cache.take(np.array([40])), store.read("rgb", 40, 41))


def test_an_empty_store_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no episodes"):
        WindowDataset(write_store(tmp_path / "d", []), HORIZONS)


def orders(dataset: WindowDataset, seed: int, epochs: int = 2) -> list[list[int]]:
    sampler = BlockShuffleSampler(dataset, seed=seed)
    return [list(sampler) for _ in range(epochs)]


@pytest.mark.parametrize("cache_bytes", [2**30, SMALL_CACHE])
def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch(
    store: DemoStore, cache_bytes: int
) -> None:
    dataset = WindowDataset(store, HORIZONS, cache_bytes=cache_bytes)
    first, second = orders(dataset, seed=0)
    assert sorted(first) == sorted(second) == list(range(len(dataset)))
    assert first != second
    assert orders(dataset, seed=0) == [first, second]
    assert orders(dataset, seed=1)[0] != first
    assert list(BlockShuffleSampler(dataset, seed=0, epoch=1)) == second


def test_where_all_fits_windows_of_all_episodes_mix(store: DemoStore) -> None:
    dataset = WindowDataset(store, HORIZONS)
    first = orders(dataset, seed=0)[0][:64]
    assert len(set(np.searchsorted(store.episode_ends, first, side="right").tolist())) >= 6


@pytest.mark.parametrize("done", [0, 1, 7, 21, 22, 23, 30])
def test_a_sampler_resumes_at_any_batch(store: DemoStore, done: int) -> None:
    dataset = WindowDataset(store, HORIZONS, cache_bytes=SMALL_CACHE)

    def run(sampler: BlockShuffleSampler, state: dict[str, Any] | None, wanted: int) -> Any:
        seen: list[list[int]] = []
        while True:
            for batch in BatchSampler(sampler, 16, drop_last=True):
                seen.append(batch)
                if len(seen) == wanted:
                    return seen, json.loads(json.dumps(sampler.state_dict()))

    whole, _ = run(BlockShuffleSampler(dataset, seed=3), None, 50)
    sampler = BlockShuffleSampler(dataset, seed=3)
    start, state = run(sampler, None, done) if done else ([], dict(sampler.state_dict()))
    resumed = BlockShuffleSampler(dataset, seed=3)
    resumed.load_state_dict(state)
    rest, _ = run(resumed, None, 50 - done)
    assert start + rest == whole


def test_a_state_of_other_data_is_refused(store: DemoStore) -> None:
    sampler = BlockShuffleSampler(WindowDataset(store, HORIZONS))
    state = {**sampler.state_dict(), "num_windows": 5}
    with pytest.raises(ValueError, match="num_windows 5"):
        sampler.load_state_dict(state)


def test_a_torch_loader_gives_the_same_batches(store: DemoStore) -> None:
    dataset = WindowDataset(store, HORIZONS)
    batches = BatchSampler(BlockShuffleSampler(dataset, seed=1), 32, drop_last=True)
    loader = DataLoader(dataset, batch_sampler=batches, collate_fn=already_collated)
    again = BatchSampler(BlockShuffleSampler(dataset, seed=1), 32, drop_last=True)
    count = 0
    for batch, ticks in zip(loader, again, strict=True):
        assert_right(store, ticks[:3], batch)
        count += 1
    assert count == len(dataset) // 32


def test_a_dataset_sent_to_another_process_carries_no_decoded_data(store: DemoStore) -> None:
    dataset = WindowDataset(store, HORIZONS)
    dataset.__getitems__(range(len(dataset)))
    sent = pickle.dumps(dataset)
    assert len(sent) < 40_000
    again: WindowDataset = pickle.loads(sent)  # noqa: S301  what a spawned loader process does
    assert_right(store, [0, 100], again.__getitems__([0, 100]))
