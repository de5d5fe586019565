"""`prise collect`: demonstrations of a scripted expert into a zarr store."""

from __future__ import annotations

from typing import Any

from data.build import build
from data.formats.folder import writable
from envs.collect import collect


def run(config: dict[str, Any]) -> int:
    """Collect until the dataset holds `episodes`; prints what was done."""
    path = writable(config["dataset"]["path"])
    if config["dataset"]["mix"]:
        raise ValueError("dataset.mix is for `prise train`; collect into one dataset.path.")
    summary = collect(
        build(config["env"]),
        build(config["expert"]),
        path,
        episodes=config["episodes"],
        workers=config["workers"],
        seed0=config["seed0"],
        keep=config["keep"],
        resume=config["resume"],
        executor=build(config["executor"]),
    )
    print(
        f"{path}: {summary.episodes} episodes; this run took {summary.seconds:.0f} s, "
        f"{summary.realtime_factor:.1f}x real time; the expert failed {summary.failed} times."
    )
    return 0
