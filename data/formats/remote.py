"""Stores at URLs, through fsspec: object storage, web servers, memory."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import fsspec
from fsspec.registry import known_implementations
from zarr.storage import FsspecStore

from data.formats.folder import DatasetError, Options

# Of 20 ms each, so many requests at a time bring about 800 chunks a second.
READERS = 16
# Servers that cannot say which files they have.
UNLISTED = {"http", "https"}
EXTRAS = {"s3": "s3", "s3a": "s3"}
# Module -> the classes of its errors, where they are no OSErrors. Only what is loaded counts: a
# library that was never imported raises nothing.
BACKEND_ERRORS = {
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "aiohttp": ("ClientError",),
    "gcsfs.retry": ("HttpError",),
    "google.auth.exceptions": ("GoogleAuthError",),
    "azure.core.exceptions": ("AzureError",),
}
NO_CREDENTIALS = ("Credential", "Token", "DefaultCredentials")
SECRETS = re.compile(
    r"(^|_)(key|secret|token|password|passwd|sas_token|connection_string|access_key_id|"
    r"secret_access_key|session_token|account_key)$",
    re.IGNORECASE,
)
HARMLESS_TOKENS = {"anon", "google_default", "cloud"}


@dataclass(frozen=True)
class RemoteFolder:
    """A folder at a URL. Neither user names in it, nor queries, nor options are ever shown."""

    url: str = field(repr=False)
    options: Options = field(repr=False, compare=False)

    readers = READERS

    def __post_init__(self) -> None:
        if secrets := sorted(set(_secrets(self.options))):
            raise DatasetError(
                f"storage_options must hold no credentials, got {', '.join(secrets)}: they would "
                "end up in logs; set them in the environment (AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, FSSPEC_<PROTOCOL>_<NAME>)."
            )

    def __str__(self) -> str:
        return re.sub(r"://[^/@]*@", "://", self.url.split("?", 1)[0]).rstrip("/")

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """Error classes of the backends that are loaded, beside OSError."""
        loaded = [(sys.modules.get(name), kinds) for name, kinds in BACKEND_ERRORS.items()]
        return tuple(getattr(module, kind) for module, kinds in loaded if module for kind in kinds)

    @property
    def _any_error(self) -> tuple[type[BaseException], ...]:
        return (OSError, ValueError, TypeError, ImportError, *self.errors)

    @property
    def identity(self) -> str:
        """The URL as it is shown."""
        return str(self)

    @cached_property
    def _filesystem(self) -> tuple[Any, str]:
        """The backend and the path within it."""
        try:
            return fsspec.url_to_fs(self.url, **self._options)  # type: ignore[no-any-return]  # fsspec is untyped
        except ImportError as error:
            raise DatasetError(f"{self} needs a package: {self._install(error)}") from error
        except self._any_error as error:
            raise DatasetError(f"{self} cannot be opened: {_said(error)}.") from error

    def __getstate__(self) -> dict[str, Any]:
        # Connections are not sent to other processes.
        return {"url": self.url, "options": self.options}

    @property
    def _protocol(self) -> str:
        return re.split(r"::|://", self.url, maxsplit=1)[0].lower()

    @property
    def _options(self) -> dict[str, Any]:
        options = dict(self.options)
        if EXTRAS.get(self._protocol) == "s3":
            config = {"max_pool_connections": READERS, **options.get("config_kwargs", {})}
            options["config_kwargs"] = config
        return options

    def _install(self, error: ImportError) -> str:
        if extra := EXTRAS.get(self._protocol):
            return f"`.venv/bin/pip install -e '.[{extra}]'` installs it ({_said(error)})."
        hint = known_implementations.get(self._protocol, {}).get("err", _said(error))
        return f"{hint.rstrip('.')}, by `.venv/bin/pip install`."

    def check(self) -> None:
        """Raise DatasetError where there is no zarr, or no way to it."""
        fs, path = self._filesystem
        fs.invalidate_cache()
        try:
            fs.cat_file(f"{path.rstrip('/')}/zarr.json")
        except FileNotFoundError as error:
            raise DatasetError(
                f"{self} does not exist: no zarr.json there ({_said(error)}); check bucket and "
                "path, or collect demonstrations into a folder and upload it."
            ) from error
        except self._any_error as error:
            raise DatasetError(f"{self}: {self.advice(error) or _said(error)}") from error

    def zarr_store(self) -> FsspecStore:
        """A zarr store in which a file that is not there is an error, never zeros."""
        self._filesystem  # noqa: B018  a wrong URL in our words
        return FsspecStore.from_url(
            self.url, storage_options=self._options, read_only=True, allowed_exceptions=()
        )

    def files(self, name: str) -> set[str] | None:
        """Names in the folder `name`; None over HTTP."""
        if self._protocol in UNLISTED:
            return None
        fs, path = self._filesystem
        return {entry.rsplit("/", 1)[-1] for entry in fs.ls(f"{path}/{name}", detail=False)}

    def size(self, name: str = "") -> int | None:
        """Bytes of all files below `name`; None over HTTP."""
        if self._protocol in UNLISTED:
            return None
        fs, path = self._filesystem
        return int(fs.du(f"{path}/{name}".rstrip("/")))

    def advice(self, error: BaseException) -> str | None:
        """What refused, or could not be reached; None for a file that is there and is bad."""
        if isinstance(error, FileNotFoundError):
            return f"a file is missing ({_said(error)}); upload the store again."
        kinds = [kind.__name__ for kind in type(error).__mro__]
        if isinstance(error, PermissionError) or any(
            word in kind for kind in kinds for word in NO_CREDENTIALS
        ):
            return (
                f"access is refused ({_said(error)}); check the credentials in the environment "
                "(for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE)."
            )
        if isinstance(error, (OSError, ImportError, *self.errors)):
            return f"no answer ({_said(error)}); check the network and the endpoint."
        return None


def _secrets(options: Any) -> Iterator[str]:
    """Names of options that look like credentials, at any depth."""
    for name, value in options.items():
        if isinstance(value, dict):
            yield from _secrets(value)
        elif SECRETS.search(str(name)) and value and str(value) not in HARMLESS_TOKENS:
            yield str(name)


def _said(error: BaseException) -> str:
    """Type and first line of an error, without what was signed."""
    lines = str(error).splitlines()
    text = re.sub(r"\?\S+", "", lines[0]).rstrip(".") if lines else ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
