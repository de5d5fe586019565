"""Training windows of stored demonstrations as torch batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.cache import ChunkCache, Index, chunks_per_episode, plan_slots
from data.formats.layout import ACTION, VALID
from data.formats.zarr_store import DatasetError, DemoStore
from data.sampler import BlockShuffleSampler, EpisodeWindows, EpochSampler
from data.spec import Horizons
from data.windows import WindowIndex

__all__ = ["Batch", "BlockShuffleSampler", "WindowDataset", "already_collated"]


class Batch(TypedDict):
    """Windowed observations, actions (B, Tp, A) float32 and valid (B, Tp) bool."""

    obs: dict[str, Tensor]
    action: Tensor
    valid: Tensor


class WindowDataset(Dataset[Batch]):
    """Windows of a store: images (To, H, W, 3) uint8, state (To, D), fast modality (W, D).

    A batch is gathered at once by `__getitems__`, fast enough to need no loader processes; each
    of those would have a cache of its own.

    Args:
        store: Opened demonstrations.
        horizons: Window lengths.
        keys: Observations to read; None for all.
        cache_bytes: Bound on decoded data held in memory, whatever the size of the store.
        end_ticks: The last so many windows of each episode come `end_weight` times an epoch: where
            a demonstration ends, it decides.
        end_weight: See `end_ticks`.
        labelled_only: Leave out windows whose first action is a deliberate mistake.
    """

    def __init__(
        self,
        store: DemoStore,
        horizons: Horizons,
        keys: Iterable[str] | None = None,
        cache_bytes: int = 512 * 2**20,
        labelled_only: bool = False,
        end_ticks: int = 0,
        end_weight: int = 1,
    ) -> None:
        if not store.num_episodes:
            raise DatasetError(f"{store.folder} has no episodes yet; collect some.")
        self.store, self.horizons = store, horizons
        self.spec = store.spec if keys is None else store.spec.select(keys)
        self._index = WindowIndex(store.episode_ends, horizons)
        columns = [*self.spec.obs, ACTION, VALID]
        slots = plan_slots(store, columns, cache_bytes)
        self._caches = {key: ChunkCache(store, key, slots[key]) for key in columns}
        self._ticks: Index = np.arange(len(self._index))
        if labelled_only:
            self._ticks = np.flatnonzero(store.read(VALID, 0, store.num_steps))
            if not len(self._ticks):
                raise DatasetError(f"{store.folder} has no valid action; nothing can be learnt.")
        ends = store.episode_ends[np.searchsorted(store.episode_ends, self._ticks, side="right")]
        self._ticks = self._ticks.repeat(np.where(ends - self._ticks <= end_ticks, end_weight, 1))

    def __len__(self) -> int:
        return len(self._ticks)

    def __str__(self) -> str:
        return str(self.store.folder)

    @property
    def cache_nbytes(self) -> int:
        """Most bytes that decoded chunks can take."""
        return sum(cache.nbytes for cache in self._caches.values())

    def __getitem__(self, index: int) -> Batch:
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} wanted, there are {len(self)}.")
        batch = self.__getitems__([index])
        obs = {key: value[0] for key, value in batch["obs"].items()}
        return {"obs": obs, "action": batch["action"][0], "valid": batch["valid"][0]}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The batch of these windows, already collated."""
        ticks = self._ticks[np.asarray(indices, np.int64)]
        obs_rows = self._index.obs_rows(ticks)
        obs = {}
        for key in self.spec.obs:
            if self.spec.is_fast(key):
                rate = self.spec.samples_per_tick(key)
                samples = self._index.fast_samples(ticks, rate)
                obs[key] = torch.from_numpy(self._caches[key].take_samples(samples, rate))
            else:
                obs[key] = torch.from_numpy(self._caches[key].take(obs_rows))
        rows = self._index.action_rows(ticks)
        action = torch.from_numpy(self._caches[ACTION].take(rows))
        valid = torch.from_numpy(self._caches[VALID].take(rows))
        return {"obs": obs, "action": action, "valid": valid}

    def sampler(self, seed: int) -> EpochSampler:
        """In which order to train on the windows."""
        return BlockShuffleSampler(self, seed)

    def episode_windows(self) -> EpisodeWindows:
        """Windows of each episode and what it takes of the caches, for the sampler."""
        bounds = np.searchsorted(self._ticks, self.store.episode_ends)
        caches = self._caches.items()
        return EpisodeWindows(
            windows=np.split(np.arange(len(self)), bounds[:-1]),
            costs=np.stack([chunks_per_episode(self.store, key) for key, _ in caches], axis=-1),
            capacity=np.array([np.inf if c.holds_all else c.num_slots for _, c in caches]),
        )


def already_collated(batch: Any) -> Any:
    """For `DataLoader(collate_fn=...)`, which expects a list: the batch as the dataset gave it."""
    return batch
