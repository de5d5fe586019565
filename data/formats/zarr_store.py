"""Demonstrations in a zarr 3 directory: a reader, and a writer that may be killed at any time.

The reader also takes the URL of a copy of such a directory, the writer does not.

    data/<observation key>   (T, *shape), fast modality (T, r, *shape); episodes one after the other
    data/action              (T, A) float32
    data/valid               (T,) bool: the action is a demonstration, not a deliberate mistake
    meta/seed                (E,) int64
    meta/episode_ends        (E,) int64, first row after each episode: the commit, written last
    attributes               format, schema_version, spec, provenance

zarr's LocalStore writes every chunk and every `zarr.json` beside its place and renames it, so a
killed process leaves old or new files, never halves. Rows after the last committed episode are
ignored by the reader and overwritten at resume. Files are not synced to disk: what a power cut
damages is found by the checksum in each chunk.

There are no shards: appending an episode to a shard rewrites the shard, 64 MiB for every 2 MiB
collected. Chunk files lie flat in one folder a key instead of one folder a dimension.
"""

from __future__ import annotations

import copy
import fcntl
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray

from data.formats import layout
from data.formats.folder import (
    DatasetError,
    Folder,
    LocalFolder,
    Options,
    folder_at,
    writable,
)
from data.formats.layout import ACTION, EPISODE_ENDS, SEED, VALID
from data.spec import DataSpec, Obs

__all__ = ["DatasetError", "DemoStore", "Episode", "ZarrWriter", "open_zarr"]


@dataclass(frozen=True)
class Episode:
    """Raw rows of one episode: obs key -> (T, ...), action (T, A), valid (T,)."""

    obs: Obs
    action: NDArray[np.float32]
    valid: NDArray[np.bool_]
    seed: int

    def __len__(self) -> int:
        return len(self.action)


class DemoStore:
    """Read access to the episodes that were committed when the store was opened."""

    def __init__(self, folder: Folder, group: zarr.Group) -> None:
        self.folder = folder
        self.spec = layout.read_spec(folder, group)
        self.provenance: Any = group.attrs.get("provenance")
        ends = layout.open_array(folder, group, EPISODE_ENDS)
        rows = layout.read_rows(folder, EPISODE_ENDS, ends, 0, ends.shape[0])
        self.episode_ends: NDArray[np.int64] = layout.committed(rows)
        seeds = layout.open_array(folder, group, SEED)
        layout.check_rows(folder, SEED, seeds, self.num_episodes)
        self.seeds: NDArray[np.int64] = layout.read_rows(folder, SEED, seeds, 0, self.num_episodes)
        self._arrays: dict[str, zarr.Array[Any]] = {}
        for key, row in layout.columns(self.spec).items():
            array = layout.open_array(folder, group, f"data/{key}")
            layout.check_column(folder, key, array, row)
            layout.check_rows(folder, f"data/{key}", array, self.num_steps)
            self._arrays[key] = array

    @property
    def path(self) -> Path:
        """The folder on this machine."""
        if not isinstance(self.folder, LocalFolder):
            raise DatasetError(f"{self.folder} is no folder of this machine; download it first.")
        return self.folder.path

    @property
    def num_episodes(self) -> int:
        """Committed episodes."""
        return len(self.episode_ends)

    @property
    def num_steps(self) -> int:
        """Rows of all committed episodes."""
        return int(self.episode_ends[-1]) if self.num_episodes else 0

    @property
    def episode_starts(self) -> NDArray[np.int64]:
        """First row of each episode."""
        return np.concatenate([np.zeros(1, np.int64), self.episode_ends])[: self.num_episodes]

    def renamed(self, names: Mapping[str, str]) -> DemoStore:
        """The same store with other observation keys: {key here: key there}."""
        if unknown := sorted(names.keys() - self.spec.obs.keys()):
            raise DatasetError(
                f"{self.folder} has no observation {', '.join(unknown)} to rename; it has "
                f"{sorted(self.spec.obs)}."
            )
        keys = [names.get(key, key) for key in self.spec.obs]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise DatasetError(
                f"{self.folder} would have {', '.join(twice)} twice; rename that one as well."
            )
        view = copy.copy(self)
        view.spec = replace(self.spec, obs=dict(zip(keys, self.spec.obs.values(), strict=True)))
        view._arrays = {names.get(key, key): array for key, array in self._arrays.items()}
        layout.columns(view.spec)  # refuses the names of the store's own columns
        return view

    def chunk_rows(self, key: str) -> int:
        """Rows of `key` that are stored, and decoded, together."""
        return int(self._array(key).chunks[0])

    def read(self, key: str, start: int, stop: int) -> NDArray[Any]:
        """Rows [start, stop) of an observation key, "action" or "valid"."""
        array = self._array(key)
        if not 0 <= start <= stop <= self.num_steps:
            raise IndexError(f"rows {start}:{stop} wanted, {self.folder} has {self.num_steps}.")
        return layout.read_rows(self.folder, array.path, array, start, stop)

    def episode(self, index: int) -> Episode:
        """All rows of one episode."""
        if not 0 <= index < self.num_episodes:
            raise IndexError(f"episode {index} wanted, {self.folder} has {self.num_episodes}.")
        start, stop = int(self.episode_starts[index]), int(self.episode_ends[index])
        rows = {key: self.read(key, start, stop) for key in self._arrays}
        action, valid = rows.pop(ACTION), rows.pop(VALID)
        return Episode(rows, action, valid, int(self.seeds[index]))

    def _array(self, key: str) -> zarr.Array[Any]:
        if key not in self._arrays:
            raise DatasetError(f"{self.folder} has no key {key!r}; it has {sorted(self._arrays)}.")
        return self._arrays[key]


def open_zarr(path: str | os.PathLike[str], storage_options: Options | None = None) -> DemoStore:
    """Open demonstrations for reading; DatasetError, in one line, if that cannot be done.

    Args:
        path: Folder, or URL of any fsspec backend: s3://bucket/demos.zarr.
        storage_options: Of that backend; see `data.formats.folder.folder_at`.
    """
    folder = folder_at(path, storage_options)
    return DemoStore(folder, layout.open_group(folder, "r"))


class ZarrWriter:
    """Appends whole episodes to a store; one writer a store, held by a lock on its folder.

    Args:
        path: Folder to create, or with `resume` to create or continue.
        spec: What the episodes hold; on resume it must be the spec of the store.
        provenance: What made the data (command, version), as JSON allows; not changed on resume.
        resume: Continue a store that exists.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        spec: DataSpec,
        provenance: Mapping[str, Any],
        resume: bool = False,
    ) -> None:
        self.path, self.spec = writable(path), spec
        self._folder = LocalFolder(self.path)
        if self.path.exists() and not resume:
            raise DatasetError(f"{self.path} exists; choose another path, or resume it.")
        if not self.path.exists():
            layout.create(self.path, spec, provenance)
        group = layout.open_group(self._folder, "r+")
        self._lock: int | None = _lock(self.path)
        try:
            self._open(group)
        except DatasetError:
            self.close()
            raise

    def _open(self, group: zarr.Group) -> None:
        store = DemoStore(self._folder, group)
        if store.spec != self.spec:
            raise DatasetError(
                f"{self.path} was written with another spec, write to another path: "
                f"there {store.spec}, now {self.spec}."
            )
        for leftover in self.path.rglob("*.partial"):
            leftover.unlink()
        names = [*(f"data/{key}" for key in layout.columns(self.spec)), SEED, EPISODE_ENDS]
        self._arrays = {name: layout.open_array(self._folder, group, name) for name in names}
        self._seeds: list[int] = store.seeds.tolist()
        self._num_steps = store.num_steps

    @property
    def num_episodes(self) -> int:
        """Episodes committed so far."""
        return len(self._seeds)

    @property
    def num_steps(self) -> int:
        """Rows committed so far."""
        return self._num_steps

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the episodes committed so far."""
        return tuple(self._seeds)

    def append(self, episode: Episode) -> None:
        """Write one episode: after the return it is there, before it is not."""
        if self._lock is None:
            raise DatasetError(f"{self.path}: this writer is closed; open another.")
        rows = {**episode.obs, ACTION: episode.action, VALID: episode.valid}
        _check_episode(rows, self.spec)
        stop = self._num_steps + len(episode)
        for key in layout.columns(self.spec):
            self._write(f"data/{key}", self._num_steps, rows[key])
        self._write(SEED, self.num_episodes, np.array([episode.seed], np.int64))
        self._write(EPISODE_ENDS, self.num_episodes, np.array([stop], np.int64))
        self._num_steps = stop
        self._seeds.append(int(episode.seed))

    def _write(self, name: str, start: int, rows: NDArray[Any]) -> None:
        array = self._arrays[name]
        array.resize((start + len(rows), *array.shape[1:]))
        array[start : start + len(rows)] = rows

    def close(self) -> None:
        """Let go of the store, so that another writer can have it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _lock(path: Path) -> int:
    """Lock the folder itself; the system lets go of it when the process dies."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise DatasetError(f"{path} has a writer already; wait for it or stop it.") from error
    return descriptor


def _check_episode(rows: Mapping[str, NDArray[Any]], spec: DataSpec) -> None:
    """Raise DatasetError for an episode that the spec does not describe."""
    wanted = layout.columns(spec)
    if rows.keys() != wanted.keys():
        raise DatasetError(f"episode has {sorted(rows)}, the spec wants {sorted(wanted)}.")
    length = len(rows[ACTION])
    if not length:
        raise DatasetError("episode has no steps; leave it out.")
    for key, (shape, dtype) in wanted.items():
        value = rows[key]
        if value.shape != (length, *shape) or value.dtype != dtype:
            raise DatasetError(
                f"episode {key!r} came as {value.dtype} {value.shape}, "
                f"wanted {dtype} {(length, *shape)}."
            )
        if dtype == np.float32 and not np.isfinite(value).all():
            raise DatasetError(f"episode {key!r} holds NaN or Inf; look at what made it.")
