"""The order of training windows: shuffled, with memory bounded, resumable at any window."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]


@dataclass(frozen=True)
class EpisodeWindows:
    """The windows of each episode, and what an episode takes of a cache.

    `costs` is (E, keys), `capacity` (keys,), both in chunks.
    """

    windows: list[Index]
    costs: NDArray[Any]
    capacity: NDArray[Any]


class HasEpisodes(Protocol):
    """What a sampler must know of a dataset."""

    def __len__(self) -> int: ...

    def episode_windows(self) -> EpisodeWindows:
        """Windows and costs of all episodes."""
        ...


class SamplerState(TypedDict):
    """Where a sampler is; plain integers for JSON."""

    seed: int
    epoch: int
    position: int
    num_windows: int


class EpochSampler(ABC):
    """Window indices, epoch after epoch, from `position` on.

    `position` counts windows that were handed out, so the state saved after a batch resumes at the
    batch that follows. Loader processes read ahead of the training: there, set epoch and position
    from the number of batches that were used.
    """

    def __init__(self, num_windows: int, seed: int, epoch: int = 0) -> None:
        self._num_windows, self._seed = num_windows, seed
        self.epoch, self.position = epoch, 0

    @abstractmethod
    def order(self) -> Index:
        """All windows in the order of this epoch, which follows from seed and epoch."""

    def __len__(self) -> int:
        return self._num_windows

    def __iter__(self) -> Iterator[int]:
        order = self.order()
        while self.position < len(order):
            # Counted before it is handed out: the caller's code runs inside `yield`.
            self.position += 1
            yield int(order[self.position - 1])
        self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self) -> SamplerState:
        """Epoch and position, and what they depend on."""
        return {
            "seed": self._seed,
            "epoch": self.epoch,
            "position": self.position,
            "num_windows": self._num_windows,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where `state` was taken; ValueError if that is not possible."""
        now = dict(self.state_dict())
        for key in ("seed", "num_windows"):
            if state[key] != now[key]:
                raise ValueError(
                    f"sampler state has {key} {state[key]}, this run has {now[key]}; resume with "
                    "the same data and settings."
                )
        self.epoch, self.position = int(state["epoch"]), int(state["position"])


class BlockShuffleSampler(EpochSampler):
    """Episodes permuted into blocks, windows shuffled within each block.

    A block holds as many episodes as the cache does, so a chunk is decoded about once an epoch.
    Where everything fits there is one block: a plain permutation. The order depends on
    (seed, epoch) and on the size of the cache alone.

        sampler = BlockShuffleSampler(dataset, seed=0)
        batches = BatchSampler(sampler, 64, drop_last=True)
        for batch in DataLoader(dataset, batch_sampler=batches, collate_fn=already_collated): ...

    One pass is one epoch, from `position` on; the next pass is the next epoch.
    """

    def __init__(self, dataset: HasEpisodes, seed: int = 0, epoch: int = 0) -> None:
        super().__init__(len(dataset), seed, epoch)
        self._episodes = dataset.episode_windows()

    def order(self) -> Index:
        """All windows in the order of this epoch."""
        return self.order_of(self.epoch)

    def order_of(self, epoch: int) -> Index:
        """All windows in the order of any epoch."""
        rng = np.random.default_rng([self._seed, epoch])
        blocks = self._blocks(rng.permutation(len(self._episodes.windows)))
        windows = [np.concatenate([self._episodes.windows[e] for e in block]) for block in blocks]
        return np.concatenate([rng.permutation(block) for block in windows])

    def _blocks(self, episodes: Index) -> list[Index]:
        """Cut the permuted episodes where the next one would exceed the capacity."""
        cuts, used = [], np.zeros_like(self._episodes.capacity)
        for place, episode in enumerate(episodes):
            used = used + self._episodes.costs[episode]
            if place and np.any(used > self._episodes.capacity):
                cuts.append(place)
                used = self._episodes.costs[episode]
        return np.split(episodes, cuts)


class MixSampler(EpochSampler):
    """Windows of several datasets, each with its share of every epoch, evenly spread over it.

    Of dataset m an epoch takes the next `counts[m]` windows of that dataset's own endless, block
    shuffled stream, so all its windows come equally often whatever its weight. Where each stream
    is follows from the epoch alone. Index `offsets[m] + i` is window i of dataset m.
    """

    def __init__(self, datasets: Sequence[HasEpisodes], counts: Index, seed: int = 0) -> None:
        super().__init__(int(counts.sum()), seed)
        self._counts = counts
        self._offsets = np.cumsum([0, *(len(dataset) for dataset in datasets)])
        # Equally long datasets must not be shuffled alike.
        seeds = [seed + 1_000_003 * (place + 1) for place in range(len(datasets))]
        pairs = zip(datasets, seeds, strict=True)
        self._streams = [BlockShuffleSampler(dataset, own) for dataset, own in pairs]

    def order(self) -> Index:
        """All windows in the order of this epoch."""
        rng = np.random.default_rng([self._seed, self.epoch])
        members = rng.permutation(np.repeat(np.arange(len(self._counts)), self._counts))
        order = np.empty(len(members), np.int64)
        for member, (stream, count) in enumerate(zip(self._streams, self._counts, strict=True)):
            part = _part(stream, self.epoch * int(count), int(count))
            order[members == member] = self._offsets[member] + part
        return order


def _part(stream: BlockShuffleSampler, start: int, count: int) -> Index:
    """Windows [start, start + count) of all epochs of `stream`, one after the other."""
    first, last = start // len(stream), (start + count - 1) // len(stream)
    windows = np.concatenate([stream.order_of(epoch) for epoch in range(first, last + 1)])
    return windows[start - first * len(stream) :][:count]
