"""`calibration.json` in a checkpoint's folder: start levels and thresholds, with their reasons.

    last/calibration.json         belongs to the weights whose digest it holds

It is written beside its place and renamed, is not part of the manifest, and goes when the
checkpoint is saved again, with the weights it was measured on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.checkpoint import WEIGHTS, CheckpointError, open_checkpoint
from policy.diffusion_policy import DiffusionPolicy
from policy.level_grid import QUANTILES, Choice

CALIBRATION = "calibration.json"
ESTIMATED = "estimated"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Calibration:
    """What `prise calibrate` found out about a checkpoint.

    Attributes:
        weights: Digest of the weights it was measured on.
        warm_start: How guesses were taken to their level.
        data: Which episodes: dataset, split, how many, seed of the choice.
        settings: Of the grid.
        choices: One for each exec horizon and budget.
        residuals: `QUANTILES` of the residual of one evaluation by probe level, as text.
        contact: `QUANTILES` of the wrench's rate of change [N/s]; None without a wrench.
    """

    weights: str
    warm_start: str
    data: Mapping[str, Any]
    settings: Mapping[str, Any]
    choices: tuple[Choice, ...]
    residuals: Mapping[str, list[float]]
    contact: list[float] | None

    def level(self, exec_horizon: int, nfe: int) -> float:
        """The start level; ValueError for what was not calibrated."""
        for choice in self.choices:
            if (choice.exec_horizon, choice.nfe) == (exec_horizon, nfe):
                return choice.level
        known = sorted({(choice.exec_horizon, choice.nfe) for choice in self.choices})
        raise ValueError(
            f"the calibration has no start level for exec_horizon {exec_horizon} and nfe {nfe}; "
            f"known (exec_horizon, nfe): {known}. Calibrate again with nfes=[{nfe}]."
        )

    def residual(self, level: float, quantile: float) -> float:
        """The residual at probe level `level` that a part `quantile` of the ticks stays below."""
        by_level = sorted((float(key), values) for key, values in self.residuals.items())
        levels = [key for key, _ in by_level]
        table: NDArray[np.float64] = np.array([values for _, values in by_level])
        at_level = [np.interp(level, levels, column) for column in table.T]
        return float(np.interp(quantile, QUANTILES, at_level))

    def contact_rate(self, quantile: float) -> float | None:
        """The rate [N/s] that the wrench of a part `quantile` of the ticks stays below."""
        return None if self.contact is None else float(np.interp(quantile, QUANTILES, self.contact))


def write_calibration(folder: Path, calibration: Calibration) -> Path:
    """Put it into the checkpoint `folder`, whole or not at all."""
    path = folder / CALIBRATION
    content = {"schema_version": SCHEMA_VERSION, "quantiles": QUANTILES, **asdict(calibration)}
    beside = path.with_name(f".{CALIBRATION}.{os.getpid()}.new")
    try:
        beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def read_calibration(policy: DiffusionPolicy) -> Calibration:
    """That of the checkpoint `policy` was loaded from; ValueError where there is none."""
    folder = policy.folder
    how = f"run `prise calibrate checkpoint={folder or 'PATH'} dataset.path=DEMONSTRATIONS`"
    if folder is None:
        raise ValueError(f"{ESTIMATED} levels need a policy that was loaded; save it, then {how}.")
    path = folder / CALIBRATION
    if not path.is_file():
        raise CheckpointError(f"{folder} has no calibration; {how}.")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        known = raw["schema_version"] == SCHEMA_VERSION and raw["quantiles"] == list(QUANTILES)
        found = {field.name: raw[field.name] for field in fields(Calibration)}
        found["choices"] = tuple(Choice(**choice) for choice in found["choices"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error!r}; {how} again.") from error
    if not known:
        raise CheckpointError(f"{path} was written by another version of Prise; {how} again.")
    calibration = Calibration(**found)
    if calibration.weights != open_checkpoint(folder).digests[WEIGHTS]:
        raise CheckpointError(f"{path} was measured on other weights; {how} again.")
    return calibration


def calibrated_level(
    calibration: Calibration, wanted: float | str, warm_start: str, exec_horizon: int, nfe: int
) -> float:
    """`wanted` where it is a number, else the calibrated start level."""
    if calibration.warm_start != warm_start:
        raise ValueError(
            f"the checkpoint was calibrated with warm_start={calibration.warm_start}, wanted "
            f"{warm_start}; run `prise calibrate` with warm_start={warm_start}."
        )
    if not isinstance(wanted, str):
        return wanted
    if wanted != ESTIMATED:
        raise ValueError(f"a level must be a number or {ESTIMATED}, got {wanted!r}.")
    return calibration.level(exec_horizon, nfe)
