"""The order of training windows: shuffled, with memory bounded, resumable at any window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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


class BlockShuffleSampler:
    """Window indices: episodes permuted into blocks, windows shuffled within each block.

    A block holds as many episodes as the cache does, so a chunk is decoded about once an epoch.
    Where everything fits there is one block: a plain permutation. The order depends on
    (seed, epoch) and on the size of the cache alone.

        sampler = BlockShuffleSampler(dataset, seed=0)
        batches = BatchSampler(sampler, 64, drop_last=True)
        for batch in DataLoader(dataset, batch_sampler=batches, collate_fn=already_collated): ...

    One pass is one epoch, from `position` on; the next pass is the next epoch. `position` counts
    windows that were handed out, so the state saved after a batch resumes at the batch that
    follows. Loader processes read ahead of the training: there, set epoch and position from the
    number of batches that were used.
    """

    def __init__(self, dataset: HasEpisodes, seed: int = 0, epoch: int = 0) -> None:
        self._episodes, self._num_windows = dataset.episode_windows(), len(dataset)
        self._seed, self.epoch, self.position = seed, epoch, 0

    def __len__(self) -> int:
        return self._num_windows

    def __iter__(self) -> Iterator[int]:
        order = self.order()
        while self.position < len(order):
            # Counted before it is handed out: the caller's code runs inside `yield`.
            self.position += 1
            yield int(order[self.position - 1])
        self.epoch, self.position = self.epoch + 1, 0

    def order(self) -> Index:
        """All windows in the order of this epoch."""
        rng = np.random.default_rng([self._seed, self.epoch])
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
