"""The data side of a run: which windows come in which step, and the statistics of their keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from torch import Generator
from torch.utils.data import BatchSampler, DataLoader, Sampler

from data.dataset import Batch, already_collated
from data.mixture import Mixture, Windows
from data.stats import Stats
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
    dataset: Windows, config: TrainConfig, start_step: int, accelerator: Accelerator
) -> Iterator[Batch]:
    """Collated batches of this process, from `start_step` on, without end.

    The windows of a step follow from the seed and the step alone: a resumed run needs no more,
    however far loader processes had read ahead. An epoch drops its last, incomplete batch.
    """
    size, world = config.batch_size, accelerator.num_processes
    if size % world or size > len(dataset):
        raise ValueError(
            f"train.batch_size must be a multiple of the {world} processes and at most the "
            f"{len(dataset)} windows of {dataset}, got {size}."
        )
    sampler = dataset.sampler(config.seed)
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


def cached_stats(data: Mixture, keys: list[str], path: Path) -> dict[str, Stats]:
    """Statistics of `keys` and "action", from `path` if it holds those of this dataset."""
    source = {"path": data.identity, "keys": keys, **data.fingerprint()}
    if path.exists():
        cached = json.loads(path.read_text(encoding="utf-8"))
        if cached["source"] == source:
            return {
                key: Stats(**{name: np.asarray(value) for name, value in fields.items()})
                for key, fields in cached["stats"].items()
            }
    stats = data.stats(keys)
    fields = {
        key: {name: np.asarray(value).tolist() for name, value in asdict(entry).items()}
        for key, entry in stats.items()
    }
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps({"source": source, "stats": fields}) + "\n", encoding="utf-8")
    beside.replace(path)
    return stats
