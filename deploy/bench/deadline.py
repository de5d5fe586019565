"""`prise bench deadline`: updates against a deadline that is a part of what they normally take.

First the controller runs without a deadline, and its median is the normal tick. Then `ticks`
updates run with `fraction` of that, in one process, and those are counted that return too late.
Last, episodes in lock-step simulation show what the robot can still do.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from data.build import build
from data.formats.zarr_store import open_zarr
from data.results import Row, print_table, success_row, write_results
from data.spec import Obs
from deploy.agent import AgentFactory
from deploy.bench.acting import EAGER, engine_config, load_engines
from deploy.bench.tick import windows
from deploy.commands.simulation import matching_env, percentile_rows, seeds_of, senses
from deploy.controllers.base import Controller
from deploy.garbage import freeze_garbage_collector
from envs.evaluate import evaluate
from policy.allocator import keep_freed_memory

WINDOWS = 50
NORMAL = 500  # ticks without a deadline
WARM_UP = 50  # ticks that do not count
# Between two updates a robot moves. Also, a process at real-time priority that never sleeps is
# stopped by the kernel for a twentieth of each second.
PAUSE = 1e-3  # [s]

Context = Mapping[str, Any]


def run(config: dict[str, Any]) -> int:
    """Measure, write `results.json` into `out` and print its table."""
    if config["checkpoint"] is None:
        raise ValueError("bench deadline needs a policy; add checkpoint=PATH.")
    for name in ("ticks", "threads"):
        if config[name] < 1:
            raise ValueError(f"{name} must be at least 1, got {config[name]}.")
    if not config["fraction"] > 0:
        raise ValueError(f"fraction must be above 0, got {config['fraction']}.")
    if "deadline_ms" not in config["controller"]:
        raise ValueError(f"controller {config['choices']['controller']} knows no deadline_ms.")
    seeds = seeds_of(config) if config["episodes"] else range(0)
    keep_freed_memory()
    torch.set_num_threads(config["threads"])
    checkpoint = Path(config["checkpoint"])
    rows = []
    for name, policy in load_engines(
        checkpoint, config["backends"] or [EAGER], config["threads"]
    ).items():
        store = open_zarr(config["dataset"]["path"])
        store.spec.check_provides(policy.spec, f"the policy in {checkpoint}")
        observed = windows(store, policy, WINDOWS)
        freeze_garbage_collector()
        normal, _ = updates(build(config["controller"], policy=policy), observed, NORMAL)
        deadline_ms = config["fraction"] * 1000 * float(np.median(normal))
        controller = {**config["controller"], "deadline_ms": deadline_ms}
        taken, planned = updates(build(controller, policy=policy), observed, config["ticks"])
        about = {
            "task": policy.spec.task,
            "obs": senses(policy.spec),
            "controller": config["choices"]["controller"],
            "backend": name,
            "threads": config["threads"],
            "fraction": config["fraction"],
            "deadline_ms": round(deadline_ms, 4),
        }
        rows += update_rows(taken, planned, deadline_ms, {**about, "wire": "bench"})
        if seeds:
            rows += episode_rows(config, controller, name, seeds, about)
    write_results(Path(config["out"]) / "results.json", "bench deadline", rows, seeds)
    print_table(rows)
    return 0


def updates(
    controller: Controller, observed: Sequence[Obs], ticks: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Seconds of each of `ticks` updates, and network evaluations of the plans that came in it."""
    period = 1 / controller.spec.rate_hz
    taken, nfe = np.zeros(ticks), np.zeros(ticks)
    for tick in tqdm(range(-WARM_UP, ticks), desc="bench deadline", unit="tick", disable=None):
        time.sleep(PAUSE)
        obs = observed[tick % len(observed)]
        started = time.perf_counter()
        controller.update(obs, tick * period)
        seconds = time.perf_counter() - started
        if tick >= 0:
            taken[tick], nfe[tick] = seconds, controller.last_nfe
    controller.reset(0)  # whatever is under way ends before the next measurement
    return taken, nfe


def update_rows(
    taken: NDArray[np.float64], nfe: NDArray[np.float64], deadline_ms: float, about: Context
) -> list[Row]:
    """Misses, percentiles and the maximum [ms], evaluations, and how many updates gave a plan."""
    ms = 1000 * taken
    longest = {**about, "percentile": 100}
    return [
        Row("deadline_misses", int((ms > deadline_ms).sum()), n=ms.size, context=about),
        *percentile_rows("tick_ms", ms, "ms", about),
        Row("tick_ms", float(ms.max()), n=ms.size, unit="ms", context=longest),
        Row("nfe_per_tick", float(nfe.mean()), n=nfe.size, context=about),
        success_row("planned", nfe > 0, context=about),
    ]


def episode_rows(
    config: Mapping[str, Any],
    controller: Mapping[str, Any],
    backend: str,
    seeds: Sequence[int],
    about: Context,
) -> list[Row]:
    """Success under the deadline in lock-step simulation, and the misses there."""
    engine = engine_config(backend)
    factory = AgentFactory(
        Path(config["checkpoint"]), controller, config["threads"], backend=engine
    )
    spec = factory().spec
    kwargs = {**config["env"]["kwargs"], "image_size": None, "cameras": None}
    env = matching_env({**config["env"], "kwargs": kwargs}, spec)
    executor = build(config["executor"])
    results = evaluate(env, factory, seeds, workers=config["workers"], executor=executor)
    context = {**about, "wire": "lockstep"}
    ticks_ms = 1000 * np.concatenate([r.agent_stats["tick_s"] for r in results])
    nfe = np.concatenate([r.agent_stats["nfe"] for r in results])
    misses = int((ticks_ms > controller["deadline_ms"]).sum())
    return [
        success_row("success", [r.success for r in results], context=context),
        Row("deadline_misses", misses, n=ticks_ms.size, context=context),
        Row("nfe_per_tick", float(nfe.mean()), n=nfe.size, context=context),
    ]
