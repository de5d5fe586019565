"""Which steps are done: a JSON file each, with the hash of all that its result depends on."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.report.run_files import write_json

FOLDER = "steps"


@dataclass(frozen=True)
class Marker:
    """What is known about a step of a run."""

    digest: str
    done: bool
    minutes: float

    @classmethod
    def read(cls, run: Path, step: str) -> Marker | None:
        """The marker of a step; None if it never began."""
        path = run / FOLDER / f"{step}.json"
        if not path.is_file():
            return None
        raw = json.loads(path.read_text(encoding="utf-8"))
        return cls(raw["digest"], raw["done"], raw["minutes"])

    def write(self, run: Path, step: str) -> None:
        """Replace the marker of a step."""
        write_json(run / FOLDER / f"{step}.json", vars(self))


def digest_of(settings: Mapping[str, Any], files: Iterable[Path], before: Iterable[str]) -> str:
    """Hash of a step's settings, of the config files it reads and of the steps it builds on."""
    content = json.dumps([settings, list(before)], sort_keys=True, default=str)
    digest = hashlib.sha256(content.encode())
    for path in sorted(files):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def clear(run: Path, outputs: Iterable[str]) -> None:
    """Remove what a step with other settings has written."""
    for name in outputs:
        path = run / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
