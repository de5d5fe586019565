"""`prise bench train`: what a training step costs, part by part, by the training's own clock."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from data.mixture import open_mixture
from data.results import Row, print_table, write_results
from data.spec import Horizons
from deploy.commands.simulation import senses
from deploy.commands.train import policy_config
from policy.config import TrainConfig
from policy.metrics import OVERHEAD, PARTS, read_metrics
from policy.train import train

STEP_PARTS = tuple(part for part in PARTS if part not in ("save", "eval"))
FEWEST_ROWS = 2


def run(config: dict[str, Any]) -> int:
    """Train for `steps`, throw the run away, write `results.json` into `out`, print its table."""
    steps = config["steps"]
    settings = replace(TrainConfig(**config["train"]), steps=steps, save_every=steps, eval_every=0)
    if steps < FEWEST_ROWS * settings.log_every:
        raise ValueError(
            f"steps must be at least {FEWEST_ROWS} x train.log_every = "
            f"{FEWEST_ROWS * settings.log_every}, got {steps}."
        )
    data = open_mixture(config["dataset"])
    with tempfile.TemporaryDirectory() as folder:
        horizons = Horizons(**config["horizons"])
        train(settings, policy_config(config), horizons, data, folder)
        timings = logged_steps(Path(folder))
    obs = senses(data.spec.select(config["encoder"]["encoders"]))
    context = {"obs": obs, "batch_size": settings.batch_size, "threads": settings.threads}
    rows = step_rows(timings, settings.log_every, context)
    write_results(Path(config["out"]) / "results.json", "bench train", rows, [settings.seed])
    print_table(rows)
    return 0


def logged_steps(run_dir: Path) -> list[Mapping[str, float]]:
    """Mean seconds of each part of a step, for every logged interval."""
    return [row["timing"] for row in read_metrics(run_dir / "metrics.jsonl") if "timing" in row]


def step_rows(
    timings: Sequence[Mapping[str, float]], log_every: int, context: Mapping[str, Any]
) -> list[Row]:
    """Milliseconds a step and the share of loading, logging and EMA.

    Only the second half counts: in the first one demonstrations are still read from disk into
    memory, and kernels are chosen.
    """
    settled = timings[len(timings) // 2 :]
    count = log_every * len(settled)
    means = {
        part: 1000 * float(np.mean([t.get(part, 0.0) for t in settled])) for part in STEP_PARTS
    }
    whole = sum(means.values())
    share = sum(means[part] for part in OVERHEAD) / whole
    return [
        Row("step_ms", whole, n=count, unit="ms", context={**context, "part": "all"}),
        *(
            Row("step_ms", value, n=count, unit="ms", context={**context, "part": part})
            for part, value in means.items()
        ),
        Row("loader_share", share, n=count, context=context),
    ]
