"""`prise inspect`: what is in a dataset or a checkpoint, read in full to see that it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.formats.folder import LOCAL, is_url
from data.inspect_dataset import inspect


def run(config: dict[str, Any]) -> int:
    """Print what `path` holds; raises where it is damaged or something else."""
    options = config["storage_options"]
    if is_url(config["path"]) or options:
        print("\n".join(inspect(config["path"], options)))
        return 0
    path = Path(config["path"].removeprefix(LOCAL))
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}; give a dataset or a checkpoint.")
    if (path / "zarr.json").is_file():
        print("\n".join(inspect(path)))
    elif (path / "manifest.json").is_file():
        _print_checkpoint(path)
    else:
        raise ValueError(
            f"{path} is neither a dataset (no zarr.json) nor a checkpoint (no manifest.json)."
        )
    return 0


def _print_checkpoint(path: Path) -> None:
    from policy.checkpoint import load_policy, open_checkpoint  # torch: not needed for datasets

    checkpoint, policy = open_checkpoint(path), load_policy(path)
    spec, horizons = checkpoint.spec, checkpoint.horizons
    parameters = sum(p.numel() for p in policy.parameters()) / 1e6
    print(f"{path}: Prise policy, task {spec.task!r}, {parameters:.2f} M parameters")
    print(
        f"  observes {horizons.obs} ticks ({horizons.window} samples of a fast modality), "
        f"predicts {horizons.pred} at {spec.rate_hz:g} Hz"
    )
    for key, obs in spec.obs.items():
        print(f"  {key}: {obs.modality} {spec.raw_shape(key)}, unit {obs.unit or '-'}")
    print(f"  action: {', '.join(spec.action.names)}")
    print("  whole: every file has the checksum it was saved with, and the policy builds.")
