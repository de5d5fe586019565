"""The data side of a run: which windows come in which step, and the statistics of their keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from torch import Generator
from torch.utils.data import BatchSampler, DataLoader, Sampler

from data.dataset import Batch, BlockShuffleSampler, WindowDataset, already_collated
from data.formats.zarr_store import DemoStore
from data.stats import Stats, dataset_stats
from policy.config import TrainConfig


class BatchShard(Sampler[list[int]]):
    """This process's part of every batch, epoch after epoch without end."""

    def __init__(self, batches: BatchSampler, rank: int, world: int) -> None:
        self._batches, self._rank, self._world = batches, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        while True:
            for batch in self._batches:
                yield batch[self._rank :: self._world]


def batches(
    dataset: WindowDataset, config: TrainConfig, start_step: int, accelerator: Accelerator
) -> Iterator[Batch]:
    """Collated batches of this process, from `start_step` on, without end.

    The windows of a step follow from the seed and the step alone: a resumed run needs no more,
    however far loader processes had read ahead. An epoch drops its last, incomplete batch.
    """
    size, world = config.batch_size, accelerator.num_processes
    if size % world or size > len(dataset):
        raise ValueError(
            f"train.batch_size must be a multiple of the {world} processes and at most the "
            f"{len(dataset)} windows of {dataset.store.path}, got {size}."
        )
    sampler = BlockShuffleSampler(dataset, seed=config.seed)
    sampler.epoch, done = divmod(start_step, len(dataset) // size)
    sampler.position = done * size
    whole = BatchSampler(sampler, size, drop_last=True)
    loader = DataLoader(
        dataset,
        batch_sampler=BatchShard(whole, accelerator.process_index, world),
        collate_fn=already_collated,
        num_workers=config.num_workers,
        pin_memory=accelerator.device.type == "cuda",
        # Forked workers inherit the locks of zarr's and torch's threads and can hang in them.
        multiprocessing_context="spawn" if config.num_workers else None,
        # Its own: a loader draws a seed when it starts, which must not shift the global one.
        generator=Generator(),
    )
    return iter(loader)


def fingerprint(store: DemoStore, episodes: int | None = None) -> dict[str, Any]:
    """What tells the (first so many) episodes of a dataset from others, without reading them."""
    ends, seeds = store.episode_ends[:episodes], store.seeds[:episodes]
    digest = hashlib.sha256(ends.tobytes() + seeds.tobytes()).hexdigest()[:16]
    return {"episodes": len(ends), "steps": int(ends[-1]) if len(ends) else 0, "digest": digest}


def cached_stats(store: DemoStore, keys: list[str], path: Path) -> dict[str, Stats]:
    """Statistics of `keys` and "action", from `path` if it holds those of this dataset."""
    source = {"path": str(store.path.resolve()), "keys": keys, **fingerprint(store)}
    if path.exists():
        cached = json.loads(path.read_text(encoding="utf-8"))
        if cached["source"] == source:
            return {
                key: Stats(**{name: np.asarray(value) for name, value in fields.items()})
                for key, fields in cached["stats"].items()
            }
    stats = dataset_stats(store, keys)
    fields = {
        key: {name: np.asarray(value).tolist() for name, value in asdict(entry).items()}
        for key, entry in stats.items()
    }
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps({"source": source, "stats": fields}) + "\n", encoding="utf-8")
    beside.replace(path)
    return stats
