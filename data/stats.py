"""Minimum, maximum, mean, deviation and quantiles of a store, in one pass and bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.formats.layout import ACTION, VALID
from data.formats.zarr_store import DatasetError, DemoStore

Array = NDArray[np.float64]

RESERVOIR = 65_536
_ROWS_PER_READ = 1024
_FRAMES_PER_READ = 64


@dataclass(frozen=True)
class Stats:
    """Per dimension of one sample, in its unit; per channel for images."""

    min: Array
    max: Array
    mean: Array
    std: Array
    q01: Array
    q99: Array


def dataset_stats(store: DemoStore, keys: Iterable[str] | None = None) -> dict[str, Stats]:
    """Stats of `keys` and of "action", which counts valid rows only.

    Quantiles are exact up to 65,536 samples a key; above, they come from a uniform random subset
    of that size (Vitter 1985, algorithm R, with a fixed generator: the same data give the same).

    Args:
        store: Opened demonstrations.
        keys: Observation keys; None for all but the images.
    """
    if keys is None:
        keys = [key for key, spec in store.spec.obs.items() if spec.modality != "image"]
    names = dict.fromkeys([*keys, ACTION])
    if unknown := [key for key in names if key not in store.spec.obs and key != ACTION]:
        raise DatasetError(
            f"{store.folder} has no keys {unknown}; it has {sorted(store.spec.obs)}."
        )
    return {key: _key_stats(store, key) for key in names}


def mixed_stats(
    stores: Sequence[DemoStore], shares: Sequence[float], keys: Iterable[str]
) -> dict[str, Stats]:
    """Stats of rows of which a share comes from each store; quantiles as in `dataset_stats`."""
    names = dict.fromkeys([*keys, ACTION])
    return {key: _merged([_stream(store, key) for store in stores], shares) for key in names}


def samples(store: DemoStore, key: str) -> Iterator[NDArray[Any]]:
    """All samples of a key in pieces (n, *shape); images as pixels (n, C); valid actions only."""
    spec = store.spec.obs.get(key)
    image = spec is not None and spec.modality == "image"
    step = _FRAMES_PER_READ if image else _ROWS_PER_READ
    for start in range(0, store.num_steps, step):
        stop = min(start + step, store.num_steps)
        rows = store.read(key, start, stop)
        if key == ACTION:
            rows = rows[store.read(VALID, start, stop)]
        elif spec is not None:
            rows = rows.reshape(-1, *(spec.shape[-1:] if image else spec.shape))
        if len(rows):
            yield rows


def _key_stats(store: DemoStore, key: str) -> Stats:
    return _stream(store, key).stats()


def _stream(store: DemoStore, key: str) -> _Stream:
    stream: _Stream | None = None
    for piece in samples(store, key):
        stream = stream or _Stream(piece.shape[1:])
        stream.add(piece.astype(np.float64))
    if stream is None:
        raise DatasetError(f"{store.folder}: {key!r} has no (valid) rows; collect demonstrations.")
    return stream


def _merged(streams: Sequence[_Stream], shares: Sequence[float]) -> Stats:
    parts = [stream.stats() for stream in streams]
    weights = np.asarray(shares) / np.sum(shares)
    mean = sum(w * part.mean for w, part in zip(weights, parts, strict=True))
    # Of a mixture: the variances within and the variance between.
    squares = [part.std**2 + (part.mean - mean) ** 2 for part in parts]
    std = np.sqrt(sum(w * square for w, square in zip(weights, squares, strict=True)))
    rows = [stream.reservoir for stream in streams]
    each = np.repeat(weights / [len(r) for r in rows], [len(r) for r in rows])
    q01, q99 = np.quantile(
        np.concatenate(rows), [0.01, 0.99], axis=0, weights=each, method="inverted_cdf"
    )
    low = np.min([part.min for part in parts], axis=0)
    high = np.max([part.max for part in parts], axis=0)
    return Stats(low, high, np.asarray(mean), std, q01, q99)


class _Stream:
    def __init__(self, shape: tuple[int, ...]) -> None:
        self._count = 0
        self._min, self._max = np.full(shape, np.inf), np.full(shape, -np.inf)
        self._mean, self._square = np.zeros(shape), np.zeros(shape)
        self._reservoir: Array = np.empty((RESERVOIR, *shape))
        self._rng = np.random.default_rng(0)

    def add(self, rows: Array) -> None:
        """Chan et al. 1983: merge the moments of two sets without cancellation."""
        self._sample(rows)
        self._min = np.minimum(self._min, rows.min(axis=0))
        self._max = np.maximum(self._max, rows.max(axis=0))
        total = self._count + len(rows)
        mean = rows.mean(axis=0)
        delta = mean - self._mean
        self._square += ((rows - mean) ** 2).sum(axis=0)
        self._square += delta**2 * (self._count * len(rows) / total)
        self._mean += delta * (len(rows) / total)
        self._count = total

    def _sample(self, rows: Array) -> None:
        """Row t takes a place in the reservoir with probability RESERVOIR / (t + 1)."""
        index = self._count + np.arange(len(rows))
        places = np.where(index < RESERVOIR, index, self._rng.integers(0, index + 1))
        keep = places < RESERVOIR
        self._reservoir[places[keep]] = rows[keep]

    @property
    def reservoir(self) -> Array:
        """The rows that quantiles are taken from."""
        return self._reservoir[: self._count]

    def stats(self) -> Stats:
        std = np.sqrt(self._square / self._count)
        q01, q99 = np.quantile(self.reservoir, [0.01, 0.99], axis=0)
        return Stats(self._min, self._max, self._mean, std, q01, q99)
