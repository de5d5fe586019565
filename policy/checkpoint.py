"""Checkpoints: folders of plain files that are whole or not there, verified when read.

    last/
      config.yaml           policy, horizons, train: everything that rebuilds the policy
      spec.json             the observations and actions it was trained on
      weights.safetensors   averaged weights, normaliser inside
      state/                training only: tensors.safetensors, values.json
      manifest.json         schema version, SHA-256 of every file above; written last
      calibration.json      later, by `prise calibrate`; in no manifest, knows its weights itself

Saving writes `.last.new` beside `last`, then renames `last -> .last.old` and `.last.new -> last`,
and deletes `.last.old`. After a kill between the renames `.last.old` is the newest whole
checkpoint: readers take it where `last` is missing, the next save puts it back. One writer at a
time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import yaml
from torch import Tensor

from data.build import build
from data.spec import DataSpec, Horizons
from policy.diffusion_policy import DiffusionPolicy

SCHEMA_VERSION = 1
CONFIG, SPEC, WEIGHTS, MANIFEST = "config.yaml", "spec.json", "weights.safetensors", "manifest.json"
STATE_TENSORS, STATE_VALUES = "state/tensors.safetensors", "state/values.json"
# All that the config of a checkpoint may build: nothing here writes files or runs what it is given.
PARTS = tuple(
    f"policy.{part}"
    for part in (
        "diffusion_policy",
        "encoders",
        "denoisers",
        "samplers",
        "level_plan",
        "schedule",
        "parameterization",
    )
)


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, of another version, or does not fit."""


@dataclass(frozen=True)
class TrainingState:
    """All that a run needs besides averaged weights to go on exactly: tensors, and JSON values."""

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint: config and spec verified and read; tensors are read when asked for."""

    path: Path
    config: dict[str, Any]
    spec: DataSpec
    horizons: Horizons
    digests: Mapping[str, str]

    def read_weights(self) -> dict[str, Tensor]:
        """The averaged weights, on the CPU."""
        return safetensors.torch.load(_read(self.path, WEIGHTS, self.digests))

    def read_state(self) -> TrainingState:
        """What training needs to resume; CheckpointError where the checkpoint has none."""
        if STATE_TENSORS not in self.digests:
            raise CheckpointError(
                f"{self.path} holds weights only, no training state; resume from a `last` folder."
            )
        tensors = safetensors.torch.load(_read(self.path, STATE_TENSORS, self.digests))
        return TrainingState(tensors, json.loads(_read(self.path, STATE_VALUES, self.digests)))


def save_checkpoint(
    path: Path | str,
    policy_config: Mapping[str, Any],
    spec: DataSpec,
    horizons: Horizons,
    weights: Mapping[str, Tensor],
    state: TrainingState | None = None,
    train: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint folder, replacing the one that is there; a kill leaves a whole one."""
    path = Path(path)
    config = {"policy": policy_config, "horizons": asdict(horizons), "train": train or {}}
    files = {
        CONFIG: yaml.safe_dump(plain(config), sort_keys=False).encode(),
        SPEC: _json(spec.to_dict()),
        WEIGHTS: _tensor_bytes(weights),
    }
    if state is not None:
        files |= {STATE_TENSORS: _tensor_bytes(state.tensors), STATE_VALUES: _json(state.values)}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    files[MANIFEST] = _json({"schema_version": SCHEMA_VERSION, "files": digests})
    _replace_folder(path, files)


def open_checkpoint(path: Path | str) -> Checkpoint:
    """The checkpoint in `path`, verified as far as it is read."""
    folder = _locate(Path(path))
    digests = _read_manifest(folder)
    raw_config, raw_spec = _read(folder, CONFIG, digests), _read(folder, SPEC, digests)
    try:
        config = yaml.safe_load(raw_config)
        spec = DataSpec.from_dict(json.loads(raw_spec))
        horizons = Horizons(**config["horizons"])
    except (KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise CheckpointError(f"{folder} is no policy checkpoint: {error!r}.") from error
    return Checkpoint(folder, config, spec, horizons, digests)


def load_policy(
    path: Path | str, device: str = "cpu", robot_spec: DataSpec | None = None
) -> DiffusionPolicy:
    """The policy of a checkpoint with its averaged weights, frozen and in eval mode.

    Args:
        path: Checkpoint folder.
        device: Where the policy goes.
        robot_spec: What will feed the policy; CheckpointError unless it provides all it needs.
    """
    checkpoint = open_checkpoint(path)
    if robot_spec is not None:
        try:
            robot_spec.check_provides(checkpoint.spec, f"checkpoint {checkpoint.path}")
        except ValueError as error:
            raise CheckpointError(str(error)) from error
    try:
        built = build(
            checkpoint.config["policy"],
            within=PARTS,
            spec=checkpoint.spec,
            horizons=checkpoint.horizons,
        )
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"cannot rebuild the policy of {checkpoint.path}: {error}; "
            "load it with the version of the code that wrote it."
        ) from error
    if not isinstance(built, DiffusionPolicy):
        raise CheckpointError(f"{checkpoint.path} holds a {type(built).__name__}, not a policy.")
    load_weights(built, checkpoint.read_weights(), checkpoint.path)
    built.folder = checkpoint.path
    return built.to(device).eval().requires_grad_(False)


def load_weights(policy: DiffusionPolicy, weights: Mapping[str, Tensor], origin: Path) -> None:
    """Load weights strictly; CheckpointError with what does not fit."""
    try:
        policy.load_state_dict(dict(weights))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"the weights of {origin} do not fit its policy: {reason}") from error


def checkpoint_exists(path: Path | str) -> bool:
    """True where `open_checkpoint` would find a folder."""
    path = Path(path)
    return path.is_dir() or _beside(path, "old").is_dir()


def plain(config: Any) -> Any:
    """The config as YAML and JSON can hold it: tuples as lists; TypeError for anything else."""
    return json.loads(json.dumps(config))


def _locate(path: Path) -> Path:
    if path.is_dir():
        return path
    if (kept := _beside(path, "old")).is_dir():
        return kept
    raise CheckpointError(f"no checkpoint folder at {path}; train one or check the path.")


def _read_manifest(folder: Path) -> dict[str, str]:
    if not (folder / MANIFEST).is_file():
        raise CheckpointError(f"{folder} has no {MANIFEST}: not a checkpoint, or one badly copied.")
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        version, files = manifest["schema_version"], dict(manifest["files"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{folder / MANIFEST} is damaged: {error!r}; copy it again."
        ) from error
    if version != SCHEMA_VERSION:
        raise CheckpointError(
            f"{folder} has schema version {version!r}, this code reads {SCHEMA_VERSION}; "
            "use the version of the code that wrote it."
        )
    return files


def _read(folder: Path, name: str, digests: Mapping[str, str]) -> bytes:
    if name not in digests or not (folder / name).is_file():
        raise CheckpointError(f"{folder} lacks {name}; copy the whole folder again.")
    content = (folder / name).read_bytes()
    if hashlib.sha256(content).hexdigest() != digests[name]:
        raise CheckpointError(
            f"{folder / name} was changed or damaged after saving (SHA-256 differs); copy it again."
        )
    return content


def _replace_folder(path: Path, files: Mapping[str, bytes]) -> None:
    new, old = _beside(path, "new"), _beside(path, "old")
    if not path.exists() and old.is_dir():
        old.rename(path)
    if path.exists() and not (path / MANIFEST).is_file():
        raise CheckpointError(f"{path} exists and is no checkpoint; it is not overwritten.")
    for leftover in (new, old):
        if leftover.is_dir():
            shutil.rmtree(leftover)
    for name, content in files.items():
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        with (new / name).open("wb") as file:
            file.write(content)
            file.flush()
            # Renaming before the content is on disk could leave an empty file after a power cut.
            os.fsync(file.fileno())
    for folder in {(new / name).parent for name in files}:
        _sync_folder(folder)
    if path.exists():
        path.rename(old)
    new.rename(path)
    _sync_folder(path.parent)
    if old.is_dir():
        shutil.rmtree(old)


def _beside(path: Path, suffix: str) -> Path:
    path = path.absolute()
    return path.with_name(f".{path.name}.{suffix}")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    # Views of one storage are refused by safetensors; copies are not.
    own = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    return safetensors.torch.save(own)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
