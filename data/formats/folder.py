"""Where a store lies: a local folder, or a URL of any backend that fsspec knows."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from zarr.storage import LocalStore

Options = Mapping[str, Any]

URL = re.compile(r"[a-z][a-z0-9+.-]*(::|://)", re.IGNORECASE)
LOCAL = "file://"


class DatasetError(ValueError):
    """A path holds no demonstrations that can be read, or an episode that does not fit."""


class Folder(Protocol):
    """A folder of files that zarr can read; `str(folder)` names it in messages."""

    @property
    def readers(self) -> int:
        """How many reads at a time pay off; 1 where a read does not wait."""
        ...

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """What reading raises, beside zarr's own errors."""
        ...

    @property
    def identity(self) -> str:
        """The same for the same folder, however it was written."""
        ...

    def check(self) -> None:
        """Raise DatasetError where there is nothing, or no way to it."""
        ...

    def zarr_store(self) -> Any:
        """What zarr opens."""
        ...

    def files(self, name: str) -> set[str] | None:
        """Names of the files in the folder `name`; None where they cannot be listed."""
        ...

    def size(self, name: str = "") -> int | None:
        """Bytes of all files below `name`; None where they cannot be listed."""
        ...

    def advice(self, error: BaseException) -> str | None:
        """What to do about `error` where the data need not be damaged; None where they are."""
        ...


@dataclass(frozen=True)
class LocalFolder:
    """A folder of this machine."""

    path: Path

    readers = 1
    errors: tuple[type[BaseException], ...] = ()

    def __str__(self) -> str:
        return str(self.path)

    @property
    def identity(self) -> str:
        """The absolute path, links followed."""
        return str(self.path.resolve())

    def check(self) -> None:
        """Raise DatasetError where there is no such folder."""
        if not self.path.exists():
            raise DatasetError(f"{self.path} does not exist; collect demonstrations first.")

    def zarr_store(self) -> LocalStore:
        """A zarr store of local files."""
        return LocalStore(self.path)

    def files(self, name: str) -> set[str] | None:
        """Names in the folder `name`."""
        return {file.name for file in (self.path / name).iterdir()}

    def size(self, name: str = "") -> int | None:
        """Bytes of all files below `name`."""
        files = (self.path / name).rglob("*")
        return sum(file.stat().st_size for file in files if file.is_file())

    def advice(self, error: BaseException) -> str | None:
        """None: what a disk does not give is damaged."""
        return None


def folder_at(path: str | os.PathLike[str], storage_options: Options | None = None) -> Folder:
    """The folder that a path or a URL names; reads nothing yet.

    Args:
        path: Local path, `file://` included, or URL (s3://, gs://, https://, memory://, ...).
        storage_options: Arguments of the URL's fsspec backend, credentials excepted: backends find
            those in the environment.
    """
    text = os.fspath(path)
    if storage_options is not None and not isinstance(storage_options, Mapping):
        raise DatasetError(f"storage_options must be {{name: value}}, got {storage_options!r}.")
    if is_url(text):
        from data.formats.remote import RemoteFolder  # fsspec: not needed for local paths

        return RemoteFolder(text, dict(storage_options or {}))
    if storage_options:
        raise DatasetError(
            f"storage_options {sorted(storage_options)} are for URLs, {text} is a local path; "
            "leave them out."
        )
    return LocalFolder(Path(text.removeprefix(LOCAL)))


def writable(path: str | os.PathLike[str]) -> Path:
    """The local folder that `path` names; DatasetError for a URL, which holds no lock."""
    if is_url(path):
        raise DatasetError(
            "demonstrations are written to a folder of this machine, where a lock and renames keep "
            f"them whole, not to {folder_at(path)}; write to a folder, then upload it "
            "(`aws s3 cp --recursive FOLDER URL`) and read it from there."
        )
    return Path(os.fspath(path).removeprefix(LOCAL))


def is_url(path: str | os.PathLike[str]) -> bool:
    """True for what fsspec reads; a path of this machine, `file://` or not, is False."""
    text = os.fspath(path)
    return bool(URL.match(text)) and not text.startswith(LOCAL)
