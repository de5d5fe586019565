"""`prise calibrate`: start levels and thresholds of a checkpoint, measured on held-out episodes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from data.formats.zarr_store import open_zarr
from data.results import Row, print_table, write_results
from deploy.commands.calibrate_plot import draw
from deploy.commands.simulation import percentile_rows, senses
from deploy.controllers.rti import named_warm_start
from policy.allocator import keep_freed_memory
from policy.calibration import Calibration, write_calibration
from policy.checkpoint import WEIGHTS, Checkpoint, load_policy, open_checkpoint
from policy.level_grid import Choice, GridSettings, Shift, count_steps, measure
from policy.moments import BATCH, choose_ticks, episodes_of, read_moments
from policy.start_level import Solver


def run(config: dict[str, Any]) -> int:
    """Measure, write `calibration.json` into the checkpoint, print the table, draw the picture."""
    keep_freed_memory()
    torch.set_num_threads(config["threads"])
    opened, policy = open_checkpoint(config["checkpoint"]), load_policy(config["checkpoint"])
    settings = _settings(config, policy.horizons.pred)
    store = open_zarr(config["dataset"]["path"])
    episodes = episodes_of(store, config["split"], opened.config["train"].get("dataset"))
    history = max(settings.exec_horizons)
    ticks = choose_ticks(store, episodes, history, config["moments"], config["seed"])
    print(
        f"{len(ticks)} moments of {len(episodes)} episodes of {store.path}, split {config['split']}"
    )
    solver = Solver(policy, named_warm_start(config["warm_start"]))
    total = len(range(0, len(ticks), BATCH)) + count_steps(settings, policy.schedule)
    with tqdm(total=total, desc="calibrate", unit="step") as bar:
        moments = read_moments(policy, store, ticks, history, bar.update)
        measured = measure(solver, moments, settings, config["seed"], bar.update)
    data = {"dataset": store.path.name, "split": config["split"], "episodes": len(episodes)}
    about = {**data, "moments": len(ticks), "seed": config["seed"]}
    calibration = Calibration(
        opened.digests[WEIGHTS],
        config["warm_start"],
        about,
        vars(settings),
        measured.choices,
        measured.residuals,
        measured.contact,
    )
    _report(opened, calibration, measured.shifts, settings, Path(config["out"]))
    return 0


def _settings(config: Mapping[str, Any], pred_horizon: int) -> GridSettings:
    horizons = [k for k in config["exec_horizons"] if k <= pred_horizon]
    if not horizons:
        raise ValueError(
            f"exec_horizons {config['exec_horizons']} must hold one of 1..{pred_horizon}, the "
            "number of actions the policy predicts."
        )
    names = ("samples", "cold_steps", "reaction_ticks", "cover")
    return GridSettings(tuple(horizons), tuple(config["nfes"]), **{k: config[k] for k in names})


def _report(
    opened: Checkpoint,
    calibration: Calibration,
    shifts: Mapping[int, Shift],
    settings: GridSettings,
    out: Path,
) -> None:
    context = {"task": opened.spec.task, "obs": senses(opened.spec), **calibration.data}
    errors = [
        row
        for horizon, shift in shifts.items()
        for row in _shift_rows(shift, {**context, "exec_horizon": horizon})
    ]
    levels = [_level_row(choice, context) for choice in calibration.choices]
    write_results(out / "results.json", "calibrate", errors + levels, [calibration.data["seed"]])
    print_table(errors)
    print()
    print_table(levels)
    print(f"picture: {draw(shifts, calibration.choices, settings, out / 'calibrate.png')}")
    print(f"written to {write_calibration(opened.path, calibration)}")


def _shift_rows(shift: Shift, context: Mapping[str, Any]) -> list[Row]:
    count = len(shift.error)
    return [
        *percentile_rows("shift_error", shift.error.double().numpy(), "", context),
        Row("sample_spread", shift.spread, n=count, context=context),
        Row("two_modes", shift.two_modes, n=count, context=context),
    ]


def _level_row(choice: Choice, context: Mapping[str, Any]) -> Row:
    why: dict[str, str | int | float | None] = {
        "nfe": choice.nfe,
        "because": choice.because,
        "cover": choice.cover_level,
        "contraction": choice.contraction_level,
    }
    if choice.flip_level is not None:  # there are discrete actions, and some wanted to change
        why["flip"] = choice.flip_level
    return Row(
        "start_level", choice.level, context={**context, "exec_horizon": choice.exec_horizon, **why}
    )
