"""A run's folder as a demo leaves it, small, with figures that the tests know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from data.results import Context, Row, paired_difference, success_row, write_results
from deploy.commands.simulation import PERCENTILES, outcome_rows
from deploy.report.run_files import (
    COLLECT,
    EPISODES,
    FACTS,
    INDEX,
    METRICS,
    RESULTS,
    RUNS,
    SESSION,
    write_json,
)
from deploy.report.video import compose_frame, write_video

ARMS = {  # success per seed, median tick [ms], NFE a tick
    ("vision_force", "rti", "lockstep"): ([True] * 9 + [False], 5.0, 1.1),
    ("vision_force", "cold_ddpm", "lockstep"): ([True] * 10, 200.0, 12.5),
    ("vision", "rti", "lockstep"): ([True] * 2 + [False] * 8, 4.0, 1.1),
    ("vision_force", "rti", "ros2"): ([True] * 10, 6.0, 1.1),
}
NUM_FRAMES = 12
HOSTILE = "<script>alert('x')</script>"


def write_run(path: Path) -> Path:
    """Everything that a report can show."""
    write_results(path / RESULTS, "demo", rows(), range(500, 510))
    facts = {"versions": {"torch": HOSTILE}, "seeds": {"seeds": "500 to 509"}}
    write_json(path / FACTS, {**facts, "commands": [["./run", "demo"]]})
    collected = {
        "episodes": 10,
        "steps": 1000,
        "sim_seconds": 100.0,
        "seed_first": 0,
        "seed_last": 10,
        "failed_seeds": [3],
        "realtime_factor": 21.5,
        "workers": 2,
        "image_size": 64,
    }
    write_json(path / COLLECT, collected)
    for name in ("vision", "vision_force"):
        _write_metrics(path / RUNS / name / METRICS)
    write_json(path / SESSION, _session())
    index = []
    for name, obs, outcome in (("a", "vision_force", "success"), ("b", "vision", "over_travel")):
        index.append(_write_episode(path / EPISODES / name, obs, outcome))
    write_json(path / EPISODES / INDEX, index)
    return path


def rows() -> list[Row]:
    made = []
    for (obs, controller, wire), (successes, tick_ms, nfe) in ARMS.items():
        context: Context = {"obs": obs, "controller": controller, "wire": wire, "split": "train"}
        context = {**context, "threads": 1, "workers": 2 if wire == "lockstep" else 1}
        made.append(success_row("success", successes, context=context))
        outcomes = ["success" if s else "over_travel" for s in successes]
        made += outcome_rows(outcomes, context)
        made.append(Row("nfe_per_tick", nfe, n=1000, context=context))
        for p in PERCENTILES:
            about = {**context, "percentile": p}
            made.append(Row("tick_ms", tick_ms * p / 50, n=1000, unit="ms", context=about))
        if wire == "ros2":
            made.append(Row("deadline_misses", 0, n=1000, context=context))
    arms = iter(ARMS)
    (obs, controller, wire), _, (other, _, _) = next(arms), next(arms), next(arms)
    one, two = (ARMS[o, controller, wire][0] for o in (obs, other))
    about = {"obs": obs, "controller": controller, "wire": wire}
    about |= {"against_obs": other, "against_controller": controller}
    made.append(Row("success_difference", *paired_difference(one, two), len(one), "", about))
    for step, minutes in (("all", 12.0), ("collect", 3.0), ("train", 9.0)):
        made.append(Row("minutes", minutes, unit="min", context={"step": step}))
    return made


def _write_metrics(path: Path) -> None:
    path.parent.mkdir(parents=True)
    timing = '{"load": 0.001, "forward": 0.02, "backward": 0.04}'
    lines = [f'{{"step": {s}, "loss": {1 / s}, "timing": {timing}}}\n' for s in range(10, 500, 10)]
    path.write_text("".join(lines) + '{"step": 500, "lo', encoding="utf-8")  # killed here


def _session() -> dict[str, Any]:
    episode = {
        "success": True,
        "outcome": "success",
        "metrics": {"duration_s": 8.5},
        "latency_s": [0.01, 0.02],
        "deadline_misses": 0,
        "holds": {"stale_image": 2},
    }
    episodes = [{**episode, "seed": seed} for seed in range(600, 610)]
    return {"minutes": 2.0, "deadline_misses": 0, "episodes": episodes}


def _write_episode(path: Path, obs: str, outcome: str) -> dict[str, Any]:
    path.parent.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    camera = rng.integers(0, 255, (96, 96, 3), np.uint8)
    inset = rng.integers(0, 255, (32, 32, 3), np.uint8)
    frames = [
        compose_frame([camera] * 2, [inset] * 2, f"{tick} s", tick / (NUM_FRAMES - 1))
        for tick in range(NUM_FRAMES)
    ]
    write_video(path.with_suffix(".mp4"), frames, 10)
    force_t = np.arange(10 * NUM_FRAMES) / 100
    trace = {
        "force_t": force_t.tolist(),
        "force": (10 + np.sin(force_t)).tolist(),
        "fz": (-9 + np.sin(force_t)).tolist(),
        "t": (np.arange(NUM_FRAMES) / 10).tolist(),
        "height_mm": np.linspace(20, 0, NUM_FRAMES).tolist(),
        "events": {"contact": 0.4, "release": 0.8, "end": 1.1},
    }
    write_json(path.with_suffix(".json"), trace)
    return {
        "name": path.name,
        "obs": obs,
        "controller": "rti",
        "wire": "lockstep",
        "seed": 501,
        "success": outcome == "success",
        "outcome": outcome,
        "metrics": {"duration_s": 1.1, "peak_force_n": 11.0, "released": 1.0, "overtravel_mm": 2.3},
    }
