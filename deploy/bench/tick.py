"""`prise bench tick`: what a tick costs, part by part, in one process.

All arms take turns within a round, each round in another order, so that whatever else the machine
does falls on all alike. The cold controllers are reset before each update, so that each one plans.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from tqdm import tqdm

from data.build import build
from data.formats.zarr_store import DemoStore
from data.mixture import open_one
from data.results import Row, print_table, write_results
from data.spec import Obs
from deploy.commands.simulation import percentile_rows, senses
from deploy.commands.usage import CONFIGS
from deploy.controllers.base import Controller
from deploy.controllers.solve import device_of, seconds_now, to_batch
from envs.history import ObsHistory
from policy.allocator import keep_freed_memory
from policy.checkpoint import load_policy
from policy.diffusion_policy import DiffusionPolicy

CONTROLLERS = ("rti", "cold_ddim", "cold_ddpm")
PARTS = ("encode", "denoise")
WARM_UP = 5  # rounds
RESAMPLES = 1000

Times = dict[str, NDArray[np.float64]]
# Called with the number of the tick; the seconds of what is measured, without its preparation.
Measure = Callable[[int], float]


def run(config: dict[str, Any]) -> int:
    """Measure, write `results.json` into `out` and print its table."""
    if config["checkpoint"] is None:
        raise ValueError("bench tick needs a policy; add checkpoint=PATH.")
    rounds, threads = config["rounds"], config["threads"]
    for name, value in (("rounds", rounds), ("threads", threads)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    keep_freed_memory()
    torch.set_num_threads(threads)
    policy = load_policy(Path(config["checkpoint"]))
    store = open_one(config["dataset"])
    store.spec.check_provides(policy.spec, f"the policy in {config['checkpoint']}")
    times = measure(policy, windows(store, policy, rounds + WARM_UP), rounds)
    rows = tick_rows(times, {"obs": senses(policy.spec), "threads": threads, "workers": 1})
    path = Path(config["out"]) / "results.json"
    write_results(path, "bench tick", rows, [])
    print_table(rows)
    return 0


def windows(store: DemoStore, policy: DiffusionPolicy, count: int) -> list[Obs]:
    """Windowed observations of `count` ticks of the demonstrations, in their order."""
    history = ObsHistory(policy.spec, policy.horizons)
    stops = set(store.episode_ends.tolist())
    rows = [tick % store.num_steps for tick in range(count)]
    made = []
    for row in rows:
        if row == 0 or row in stops:
            history.reset()
        history.push({key: store.read(key, row, row + 1)[0] for key in policy.spec.obs})
        made.append(history.windowed())
    return made


def measure(policy: DiffusionPolicy, observed: Sequence[Obs], rounds: int) -> Times:
    """Seconds of each arm in each round, after a warm-up."""
    arms = {**_parts(policy, observed), **_controllers(policy, observed)}
    taken: dict[str, list[float]] = {name: [] for name in arms}
    names = list(arms)
    for tick in tqdm(range(WARM_UP + rounds), desc="bench tick", unit="round", disable=None):
        first = tick % len(names)
        for name in names[first:] + names[:first]:
            seconds = arms[name](tick)
            if tick >= WARM_UP:
                taken[name].append(seconds)
    return {name: np.array(seconds) for name, seconds in taken.items()}


def _parts(policy: DiffusionPolicy, observed: Sequence[Obs]) -> dict[str, Measure]:
    """The encoder, and one evaluation of the denoiser, with nothing around them."""
    device = device_of(policy)
    batches = [to_batch(obs, policy.spec, device) for obs in observed]
    with torch.inference_mode():
        context = policy.encode(batches[0])  # (1, N, D)
        x = torch.zeros(1, policy.horizons.pred, policy.spec.action.dim, device=device)
        level = torch.full((1, 1), 0.5, device=device)

    @torch.inference_mode()
    def encode(tick: int) -> float:
        started = time.perf_counter()
        policy.encode(batches[tick])
        return seconds_now(device) - started

    @torch.inference_mode()
    def denoise(tick: int) -> float:
        started = time.perf_counter()
        policy.denoiser(x, level, context)
        return seconds_now(device) - started

    return {"encode": encode, "denoise": denoise}


def _controllers(policy: DiffusionPolicy, observed: Sequence[Obs]) -> dict[str, Measure]:
    """Whole updates, as an agent calls them."""

    def measured(name: str) -> Measure:
        config = yaml.safe_load((CONFIGS / f"controller/{name}.yaml").read_text(encoding="utf-8"))
        controller: Controller = build(config, policy=policy)
        is_cold = name != "rti"

        def update(tick: int) -> float:
            if is_cold:
                controller.reset(tick)
            started = time.perf_counter()
            controller.update(observed[tick], tick / policy.spec.rate_hz)
            return time.perf_counter() - started

        return update

    return {name: measured(name) for name in CONTROLLERS}


def tick_rows(times: Times, context: Mapping[str, Any]) -> list[Row]:
    """Percentiles [ms] of parts and ticks, and the two ratios with bootstrapped intervals."""
    rows = []
    for name in CONTROLLERS:
        about = {**context, "controller": name, "wire": "bench"}
        rows += percentile_rows("tick_ms", 1000 * times[name], "ms", about)
    for part in PARTS:
        rows += percentile_rows("part_ms", 1000 * times[part], "ms", {**context, "part": part})
    rti, ddpm = times["rti"], times["cold_ddpm"]
    both = times["encode"], times["denoise"]
    return [
        *rows,
        _ratio("tick_overhead", [rti], list(both), context),
        _ratio("tick_speedup", [ddpm], [rti], context),
    ]


def _ratio(
    name: str,
    above: Sequence[NDArray[np.float64]],
    below: Sequence[NDArray[np.float64]],
    context: Mapping[str, Any],
) -> Row:
    """Sum of the medians `above` by that of those `below`; rounds are resampled together."""
    count = len(above[0])
    picks = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))

    def medians(arms: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.sum([np.median(arm[picks], axis=1) for arm in arms], axis=0)  # type: ignore[no-any-return]  # numpy types sum of a list as Any

    value = sum(float(np.median(a)) for a in above) / sum(float(np.median(b)) for b in below)
    low, high = np.percentile(medians(above) / medians(below), [2.5, 97.5])
    return Row(name, value, float(low), float(high), count, "", context)
