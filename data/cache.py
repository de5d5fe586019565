"""Rows of a store in any order, through a bounded cache of decoded chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.formats.layout import columns
from data.formats.zarr_store import DemoStore

Index = NDArray[np.int64]


class ChunkCache:
    """Decoded chunks of one key in `num_slots` slots of one array; the oldest use goes first.

    One array means that a batch is gathered by a single `take`, wherever its rows lie.
    """

    def __init__(self, store: DemoStore, key: str, num_slots: int) -> None:
        shape, dtype = columns(store.spec)[key]
        self._store, self._key = store, key
        self._rows = store.chunk_rows(key)
        num_chunks = -(-store.num_steps // self._rows)
        self.num_slots = min(num_slots, num_chunks)
        # Not touched until filled: the system gives memory only to slots in use.
        self._data: NDArray[Any] = np.empty((self.num_slots * self._rows, *shape), dtype)
        self._slot_of: Index = np.full(num_chunks, -1, np.int64)
        self._chunk_in: Index = np.full(self.num_slots, -1, np.int64)
        self._last_use: Index = np.zeros(self.num_slots, np.int64)
        self._clock = 0
        self.misses = 0

    def __reduce__(self) -> tuple[Any, ...]:
        # A loader process gets an empty cache, not a copy of the decoded data.
        return ChunkCache, (self._store, self._key, self.num_slots)

    @property
    def holds_all(self) -> bool:
        """Nothing is ever thrown out."""
        return self.num_slots == len(self._slot_of)

    @property
    def nbytes(self) -> int:
        """Bytes with all slots filled."""
        return self._data.nbytes

    def take(self, rows: Index) -> NDArray[Any]:
        """Rows (...) of the store in any order: (..., *shape)."""
        return self._gather(np.asarray(rows, np.int64), 1, self._data)

    def take_samples(self, samples: Index, samples_per_row: int) -> NDArray[Any]:
        """Samples (...) of a fast key, counted through its rows: (..., *shape of one sample)."""
        data = self._data.reshape(-1, *self._data.shape[2:])
        return self._gather(np.asarray(samples, np.int64), samples_per_row, data)

    def _gather(self, index: Index, per_row: int, data: NDArray[Any]) -> NDArray[Any]:
        chunk_length = self._rows * per_row
        flat = index.ravel()
        chunks = flat // chunk_length
        wanted = np.unique(chunks)
        if len(wanted) <= self.num_slots:
            self._load(wanted)
            place = self._slot_of[chunks] * chunk_length + flat % chunk_length
            return data.take(place, axis=0).reshape(*index.shape, *data.shape[1:])
        out = np.empty((len(flat), *data.shape[1:]), data.dtype)
        for first in range(0, len(wanted), self.num_slots):
            part = wanted[first : first + self.num_slots]
            here = np.flatnonzero((chunks >= part[0]) & (chunks <= part[-1]))
            out[here] = self._gather(flat[here], per_row, data)
        return out.reshape(*index.shape, *data.shape[1:])

    def _load(self, chunks: Index) -> None:
        """Make `chunks`, at most `num_slots`, present."""
        self._clock += 1
        here = self._slot_of[chunks]
        self._last_use[here[here >= 0]] = self._clock
        missing = chunks[here < 0]
        if not len(missing):
            return
        # Slots that this call needs carry the newest clock, so they sort last.
        slots = np.argsort(self._last_use, kind="stable")[: len(missing)]
        # A read that fails must leave no chunk that claims to be here.
        old = self._chunk_in[slots]
        self._slot_of[old[old >= 0]] = -1
        self._chunk_in[slots] = -1
        for chunk, slot in self._filled(missing.tolist(), slots.tolist()):
            self._slot_of[chunk], self._chunk_in[slot] = slot, chunk
            self._last_use[slot] = self._clock
            self.misses += 1

    def _filled(self, chunks: list[int], slots: list[int]) -> Iterator[tuple[int, int]]:
        """Chunk and slot of each chunk as it is there; several are under way if that pays off."""
        readers = min(self._store.folder.readers, len(chunks))
        if readers == 1:
            for chunk, slot in zip(chunks, slots, strict=True):
                self._fill(chunk, slot)
                yield chunk, slot
            return
        with ThreadPoolExecutor(readers) as pool:
            try:
                done = pool.map(self._fill, chunks, slots)
                for chunk, slot, _ in zip(chunks, slots, done, strict=True):
                    yield chunk, slot
            finally:
                pool.shutdown(cancel_futures=True)

    def _fill(self, chunk: int, slot: int) -> None:
        start = chunk * self._rows
        stop = min(start + self._rows, self._store.num_steps)
        place = slot * self._rows
        self._data[place : place + stop - start] = self._store.read(self._key, start, stop)


def chunks_per_episode(store: DemoStore, key: str) -> Index:
    """How many chunks of `key` each episode touches."""
    rows = store.chunk_rows(key)
    result: Index = (store.episode_ends - 1) // rows - store.episode_starts // rows + 1
    return result


def plan_slots(store: DemoStore, keys: Sequence[str], cache_bytes: int) -> dict[str, int]:
    """Slots a key, so that the cache holds as many average episodes as `cache_bytes` allow.

    Sharing by episodes and not by bytes matters: a chunk of a small key spans many episodes.
    """
    if (needed := cache_needed(store, keys, 1)) > cache_bytes:
        raise ValueError(
            f"cache_bytes is {cache_bytes}, one episode of {store.folder} needs {needed}; raise it."
        )
    low, high = 1, store.num_episodes + 1  # low fits, high is out of range or too much
    while high - low > 1:
        middle = (low + high) // 2
        fits = cache_needed(store, keys, middle) <= cache_bytes
        low, high = (middle, high) if fits else (low, middle)
    return _slots(store, keys, low)


def cache_needed(store: DemoStore, keys: Sequence[str], episodes: int) -> int:
    """Bytes of a cache that holds so many average episodes."""
    slots = _slots(store, keys, episodes)
    return sum(count * _chunk_bytes(store, key) for key, count in slots.items())


def _slots(store: DemoStore, keys: Sequence[str], episodes: int) -> dict[str, int]:
    slots = {}
    for key in keys:
        total = -(-store.num_steps // store.chunk_rows(key))
        touched = float(chunks_per_episode(store, key).mean())
        slots[key] = min(total, max(1, int(np.ceil(episodes * touched))))
    return slots


def _chunk_bytes(store: DemoStore, key: str) -> int:
    shape, dtype = columns(store.spec)[key]
    return int(store.chunk_rows(key) * np.prod(shape, dtype=np.int64) * dtype.itemsize)
