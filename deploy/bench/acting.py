"""`prise bench acting`: ticks of real-time iteration in every engine, against their limits.

Engines take turns in blocks, so that whatever else the machine does falls on all alike. In its turn
an engine runs ticks, and then as often its two networks alone, one after the other on inputs that
lie ready: what is between the two is overhead. With `pin`, each engine is there twice: left to the
kernel, and kept on these cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from tqdm import tqdm

from data.build import build
from data.mixture import open_one
from data.results import Row, print_table, write_results
from data.spec import Obs
from deploy.bench.limits import count_cost, measure_limits
from deploy.bench.tick import windows
from deploy.commands.simulation import percentile_rows, senses
from deploy.commands.usage import CONFIGS
from deploy.controllers.rti import RTIController
from deploy.controllers.solve import to_batch
from deploy.garbage import freeze_garbage_collector
from deploy.placement import pinned
from policy.allocator import keep_freed_memory
from policy.backends.base import ExportedDenoiser, ExportedEncoder
from policy.diffusion_policy import DiffusionPolicy
from policy.export import EXPORTED, load_for_acting

EAGER = "eager"
BLOCK = 250  # ticks of one engine before it is the next one's turn
WARM_UP = 50  # ticks at the start of a block, not counted: caches hold the other engine's weights
WINDOWS = 50

Context = Mapping[str, Any]


@dataclass
class Arm:
    """An engine on its cores: its tick and its networks, each a function of the tick's number.

    Then the seconds that they took.
    """

    tick: Callable[[int], object]
    networks: Callable[[int], object]
    backend: str = EAGER
    cores: Sequence[int] | None = None
    ticks_s: list[float] = field(default_factory=list)
    networks_s: list[float] = field(default_factory=list)


def run(config: dict[str, Any]) -> int:
    """Measure, write `results.json` into `out` and print its table."""
    if config["checkpoint"] is None:
        raise ValueError("bench acting needs a policy; add checkpoint=PATH.")
    ticks, threads = config["ticks"], config["threads"]
    for name, value in (("ticks", ticks), ("threads", threads)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    keep_freed_memory()
    torch.set_num_threads(threads)
    checkpoint = Path(config["checkpoint"])
    eager = load_for_acting(checkpoint)
    store = open_one(config["dataset"])
    store.spec.check_provides(eager.spec, f"the policy in {checkpoint}")
    observed = windows(store, eager, WINDOWS)
    arms = []
    for cores in (None, config["pin"])[: 1 if config["pin"] is None else 2]:
        with pinned(cores):  # here an engine starts its threads
            for name, policy in load_engines(checkpoint, config["backends"], threads).items():
                arms.append(make_arm(policy, config["controller"], observed))
                arms[-1].backend, arms[-1].cores = name, cores
    freeze_garbage_collector()
    measure(arms, ticks)
    about = {"controller": config["choices"]["controller"], "wire": "bench", "threads": threads}
    about["obs"] = senses(eager.spec)
    rows = [row for arm in arms for row in arm_rows(arm, {**about, **of(arm)})]
    rows += limit_rows(eager, make_arm(eager, config["controller"], observed), arms, about)
    write_results(Path(config["out"]) / "results.json", "bench acting", rows, [])
    print_table(rows)
    return 0


def load_engines(
    checkpoint: Path, names: Sequence[str] | None, threads: int
) -> dict[str, DiffusionPolicy]:
    """The policy in each of the engines called `names`; None for torch and all exports there."""
    if names is None:
        exports = (checkpoint / EXPORTED).glob("*/export.json")
        names = [EAGER, *sorted(path.parent.name for path in exports)]
    known = sorted(path.stem for path in (CONFIGS / "backend").glob("*.yaml"))
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(f"backends {unknown} are unknown; known: {', '.join(known)}.")
    configs = {name: engine_config(name) for name in names}
    return {
        name: load_for_acting(checkpoint, build(config) if config else None, threads)
        for name, config in configs.items()
    }


def engine_config(name: str) -> dict[str, Any]:
    """The config of the engine called `name`; nothing for eager torch."""
    text = (CONFIGS / f"backend/{name}.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text) or {}


def make_arm(
    policy: DiffusionPolicy, controller: Mapping[str, Any], observed: Sequence[Obs]
) -> Arm:
    """A controller on `policy`, and the networks that a tick of it cannot do without."""
    made = build(dict(controller), policy=policy)
    if not isinstance(made, RTIController):
        raise ValueError("bench acting measures real-time iteration; use controller=rti.")
    batches = [to_batch(obs, policy.spec, policy.low.device) for obs in observed]
    context = policy.encode(batches[0])
    x = torch.zeros(1, policy.horizons.pred, policy.spec.action.dim)
    level = torch.full((1, 1), 0.5)
    encoder, denoiser = policy.encoder, policy.denoiser
    if isinstance(encoder, ExportedEncoder) and isinstance(denoiser, ExportedDenoiser):
        bound: tuple[Tensor, ...] = tuple(batches[0][key] for key in encoder.keys)
        encode, denoise = encoder.graph, denoiser.graph
        if encoder.newest is not None:  # what a tick runs
            encode, bound = encoder.newest, newest_inputs(policy, encoder, batches[0])

        def networks(number: int) -> object:
            return encode(*bound), denoise(x, level, context)
    else:

        def networks(number: int) -> object:
            return policy.encode(batches[number % len(batches)]), denoiser(x, level, context)

    def tick(number: int) -> object:
        return made.update(observed[number % len(observed)], number / policy.spec.rate_hz)

    return Arm(tick, torch.inference_mode()(networks))


def of(arm: Arm) -> dict[str, str]:
    """What tells one arm from another; the cores only where they are chosen."""
    pin = {} if arm.cores is None else {"pin": ",".join(map(str, arm.cores))}
    return {"backend": arm.backend, **pin}


def newest_inputs(
    policy: DiffusionPolicy, encoder: ExportedEncoder, batch: Mapping[str, Tensor]
) -> tuple[Tensor, ...]:
    """Inputs of the graph that encodes the newest frames only."""
    earlier = torch.zeros(1, policy.horizons.obs - 1, sum(encoder.frame_sizes.values()))
    newest = {
        k: x[:, -1:].contiguous() if k in encoder.frame_sizes else x for k, x in batch.items()
    }
    return earlier, *(newest[key] for key in encoder.keys)


def measure(arms: Sequence[Arm], ticks: int) -> None:
    """Fill the arms with the seconds of `ticks` ticks each, block by block."""
    number = 0
    with tqdm(total=ticks * len(arms), desc="bench acting", unit="tick", disable=None) as bar:
        while (left := ticks - len(arms[0].ticks_s)) > 0:
            count = min(BLOCK, left)
            for arm in arms:
                numbers = range(number, number + WARM_UP + count)
                with pinned(arm.cores):
                    arm.ticks_s += [_seconds(arm.tick, n) for n in numbers][WARM_UP:]
                    arm.networks_s += [_seconds(arm.networks, n) for n in numbers][WARM_UP:]
                bar.update(count)
            number += WARM_UP + count


def arm_rows(arm: Arm, about: Context) -> list[Row]:
    """Percentiles [ms], p99 by p50, and the tick by its networks."""
    ticks, networks = np.array(arm.ticks_s), np.array(arm.networks_s)
    p50, p99 = np.percentile(ticks, [50, 99])
    return [
        *percentile_rows("tick_ms", 1000 * ticks, "ms", about),
        *percentile_rows("part_ms", 1000 * networks, "ms", {**about, "part": "networks"})[:1],
        Row("tick_jitter", float(p99 / p50), n=len(ticks), context=about),
        Row("tick_overhead", float(p50 / np.median(networks)), n=len(ticks), context=about),
    ]


def limit_rows(
    policy: DiffusionPolicy, eager: Arm, arms: Iterable[Arm], about: Context
) -> list[Row]:
    """The roofline of a tick by each engine's median tick."""
    eager.tick(0)  # the first one plans from noise
    cost = count_cost(lambda: eager.tick(1), policy.parameters())
    least_ms = 1000 * measure_limits().seconds(cost)
    shared = {**about, "part": "tick", "limit_ms": round(least_ms, 4)}
    return [
        Row(
            "limit_ratio",
            least_ms / (1000 * float(np.median(arm.ticks_s))),
            context={**shared, **of(arm)},
        )
        for arm in arms
    ]


def _seconds(work: Callable[[int], object], number: int) -> float:
    started = time.perf_counter()
    work(number)
    return time.perf_counter() - started
