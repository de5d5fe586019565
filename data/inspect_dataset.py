"""What is in a store of demonstrations, as text."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from data.formats.folder import Options
from data.formats.layout import ACTION, VALID
from data.formats.zarr_store import DemoStore, open_zarr
from data.stats import samples


def inspect(path: str | os.PathLike[str], storage_options: Options | None = None) -> list[str]:
    """Lines on counts, rates, spec, values and size; reads all data, so damage is found.

    Raises DatasetError where the store cannot be read.
    """
    store = open_zarr(path, storage_options)
    return [*_summary(store), *_keys(store), *_provenance(store)]


def _summary(store: DemoStore) -> Iterator[str]:
    lengths = np.diff(store.episode_ends, prepend=0)
    seconds = store.num_steps / store.spec.rate_hz
    task = f", task {store.spec.task!r}" if store.spec.task else ""
    yield f"{store.folder}: Prise demonstrations{task}"
    yield (
        f"  {store.num_episodes} episodes, {store.num_steps} steps at {store.spec.rate_hz:g} Hz "
        f"({seconds:.1f} s), {_size(store.folder.size())}"
    )
    if not store.num_episodes:
        yield "  empty: nothing was committed yet"
        return
    median = np.median(lengths)
    yield f"  episode length {lengths.min()} to {lengths.max()}, median {median:g} steps"
    yield f"  seeds {store.seeds.min()} to {store.seeds.max()}"
    if len(np.unique(store.seeds)) < store.num_episodes:
        yield "  WARNING: some seeds occur more than once; are episodes doubled?"


def _keys(store: DemoStore) -> Iterator[str]:
    names = [*store.spec.obs, ACTION]
    width = max(map(len, names))
    for key, spec in store.spec.obs.items():
        size = _size(store.folder.size(f"data/{key}"))
        yield (
            f"  {key:{width}}  {spec.modality:6}  {spec.dtype} {store.spec.raw_shape(key)}  "
            f"{spec.rate_hz:g} Hz  unit {spec.unit or '-'}  {size}"
        )
        yield from _range(store, key, [])
    action = store.spec.action
    yield f"  {ACTION:{width}}  {action.dim} dimensions: {', '.join(action.names)}"
    yield from _range(store, ACTION, list(action.names))
    if store.num_steps:
        valid = np.mean(store.read(VALID, 0, store.num_steps))
        yield f"  {valid:.1%} of the actions are demonstrations, the rest deliberate mistakes"


def _range(store: DemoStore, key: str, names: list[str]) -> Iterator[str]:
    low: np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None = None
    high = low
    for piece in samples(store, key):
        least, most = piece.min(axis=0).astype(np.float64), piece.max(axis=0).astype(np.float64)
        low = least if low is None else np.minimum(low, least)
        high = most if high is None else np.maximum(high, most)
    if low is None or high is None:
        return
    yield f"    min {_numbers(low)}"
    yield f"    max {_numbers(high)}"
    constant = np.flatnonzero(low == high).tolist()
    if constant:
        dimensions = [names[i] if names else str(i) for i in constant]
        yield f"    constant: {', '.join(dimensions)}"


def _provenance(store: DemoStore) -> Iterator[str]:
    if isinstance(store.provenance, dict) and store.provenance:
        yield "  provenance"
        for key, value in store.provenance.items():
            yield f"    {key}: {value}"


def _numbers(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> str:
    return " ".join(f"{value:.4g}" for value in values.ravel())


def _size(num_bytes: int | None) -> str:
    if num_bytes is None:
        return "size unknown"
    size = float(num_bytes)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"
