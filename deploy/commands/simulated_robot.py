"""`prise deploy robot=sim`: the threaded loop in wall-clock time on a simulated robot."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data.build import build
from data.results import Row, print_table, success_row, write_results
from deploy.agent import AgentFactory
from deploy.clock import MonotonicClock
from deploy.commands.simulation import (
    matching_env,
    outcome_rows,
    percentile_rows,
    seeds_of,
    senses,
)
from deploy.garbage import freeze_garbage_collector
from deploy.loop import LoopStats, RealTimeLoop
from deploy.placement import Placement, pinned
from deploy.safety import SafetyLayer, SafetyLimits
from deploy.seam import SeamSettings
from deploy.sim_robot import SimRobot
from envs.evaluate import ending
from policy.checkpoint import load_policy

LONGEST_EPISODE = 60.0  # [s]
LOOK_EVERY = 0.02  # [s] for the end of the episode


@dataclass(frozen=True)
class SimSettings:
    """`configs/robot/sim.yaml`: rate of the command loop, limits, threads and their cores."""

    command_rate_hz: float = 50.0
    torch_threads: int = 1
    pin: Placement = field(default_factory=Placement)
    safety: SafetyLimits = field(default_factory=SafetyLimits)


@dataclass(frozen=True)
class Run:
    """One episode in real time."""

    success: bool
    outcome: str
    stats: LoopStats


def run(config: dict[str, Any]) -> int:
    """Run the episodes in real time, write `results.json` into `out` and print its table."""
    if config["checkpoint"] is None:
        raise ValueError("robot=sim needs a policy; add checkpoint=PATH.")
    settings: SimSettings = build(config["robot"])
    checkpoint = Path(config["checkpoint"])
    spec, horizons = (policy := load_policy(checkpoint)).spec, policy.horizons
    agent = AgentFactory(
        checkpoint, config["controller"], settings.torch_threads, backend=config["backend"]
    )
    with pinned(settings.pin.plan):
        controller = agent().controller
    env = matching_env(config["env"], spec)()
    seam = SeamSettings(**config["seam"])
    clock = MonotonicClock()
    robot = SimRobot(env, clock)
    seeds = seeds_of(config)
    freeze_garbage_collector()
    runs = []
    for seed in tqdm(seeds, unit="episode", desc="deploy"):
        safety = SafetyLayer(robot.spec, settings.safety)
        rate = settings.command_rate_hz
        loop = RealTimeLoop(robot, controller, safety, horizons, rate, clock, settings.pin, seam)
        runs.append(_episode(env, robot, loop, seed))
    robot.close()
    rows = _rows(runs, {"task": spec.task, "obs": senses(spec), **_about(config)})
    write_results(Path(config["out"]) / "results.json", "deploy", rows, seeds)
    print_table(rows)
    return 0


def _episode(env: Any, robot: SimRobot, loop: RealTimeLoop, seed: int) -> Run:
    robot.reset(seed)
    loop.start(seed)
    loop.safety.enable(True)
    give_up = time.monotonic() + LONGEST_EPISODE
    while loop.running and not robot.done and time.monotonic() < give_up:
        time.sleep(LOOK_EVERY)
    stats = loop.stop()
    if not robot.done:
        return Run(False, "timeout", stats)
    success, outcome, _ = ending(env, robot.info)
    return Run(success, outcome, stats)


def _about(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"controller": config["choices"]["controller"], "wire": "realtime"}


def _rows(runs: list[Run], context: Mapping[str, Any]) -> list[Row]:
    nfe = [n for r in runs for n in r.stats.nfe]
    misses = sum(r.stats.misses for r in runs)
    latency_ms = 1000 * np.array([s for r in runs for s in r.stats.latency_s])
    return [
        success_row("success", [r.success for r in runs], context=context),
        *outcome_rows([r.outcome for r in runs], context),
        Row("nfe_per_tick", float(np.mean(nfe)), n=len(nfe), context=context),
        Row("deadline_misses", misses, n=len(nfe), context=context),
        *percentile_rows("tick_ms", latency_ms, "ms", context),
    ]
