"""`prise bench engine`: how far training and acting are from what this machine can do.

Peaks, parts, training steps and control ticks are measured in one run, one after the other, at the
same number of threads. A ratio is the part of its limit that was reached: 1 is the hardware's end.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.dataset import Batch
from data.mixture import open_mixture
from data.results import Row, print_table, write_results
from data.spec import DataSpec, Horizons
from deploy.bench.engine_plot import draw
from deploy.bench.forward import forward_ms
from deploy.bench.limits import Cost, Limits, count_cost, measure_limits
from deploy.bench.tick import windows
from deploy.bench.train_step import logged_steps, step_rows
from deploy.commands.compose import compose
from deploy.commands.simulation import senses
from deploy.commands.train import policy_config
from deploy.controllers.rti import RTIController
from policy.allocator import keep_freed_memory
from policy.checkpoint import load_policy
from policy.config import TrainConfig
from policy.diffusion_policy import DiffusionPolicy
from policy.train import train

DENOISERS = {"transformer": "transformer", "unet": "unet1d"}  # in the rows: in configs/denoiser
# Times that a step touches every parameter: forward, backward and its gradient (3), clipping (2),
# AdamW reads four arrays and writes three, the average reads two and writes one.
TOUCHES = 3 + 2 + 7 + 3
SECONDS_EACH = 1.0
FORWARDS = 10

LOG = logging.getLogger(__name__)

Context = dict[str, Any]


def run(config: dict[str, Any]) -> int:
    """Measure, write `results.json` and `engine.png` into `out`, print the table."""
    keep_freed_memory()
    threads = config["train"]["threads"] or torch.get_num_threads()
    torch.set_num_threads(threads)
    out = Path(config["out"])
    LOG.info("peaks at %d threads", threads)
    limits = measure_limits()
    rows = _limit_rows(limits, {"threads": threads})
    for denoiser in DENOISERS:
        LOG.info("%d training steps with denoiser=%s", config["steps"], denoiser)
        with tempfile.TemporaryDirectory() as folder:
            rows += _measure(config, denoiser, limits, threads, Path(folder))
    write_results(out / "results.json", "bench engine", rows, [])
    print_table(rows)
    LOG.info("picture: %s", draw(rows, out / "engine.png"))
    return 0


def _measure(
    config: Mapping[str, Any], denoiser: str, limits: Limits, threads: int, folder: Path
) -> list[Row]:
    """Rows of the training step and the tick of one network."""
    chosen = dict(config)
    if config["choices"]["denoiser"] != DENOISERS[denoiser]:
        chosen["denoiser"] = compose("train", [f"denoiser={DENOISERS[denoiser]}"])["denoiser"]
    steps = config["steps"]
    settings = replace(TrainConfig(**config["train"]), steps=steps, save_every=steps, eval_every=0)
    data = open_mixture(config["dataset"])
    horizons = Horizons(**config["horizons"])
    train(replace(settings, threads=threads), policy_config(chosen), horizons, data, folder)
    policy = load_policy(folder / "last").requires_grad_(True)
    context: Context = {"denoiser": denoiser, "threads": threads, "obs": senses(policy.spec)}
    batched = {**context, "batch_size": settings.batch_size}
    rows = step_rows(logged_steps(folder), settings.log_every, batched)
    step_ms = rows[0].value
    return [
        *rows,
        *_forward_rows(policy, batched),
        *_parts(policy, limits, settings.batch_size, batched),
        _ratio(
            f"train_{denoiser}", step_cost(policy, settings.batch_size), step_ms, limits, batched
        ),
        *_parts(policy.eval().requires_grad_(False), limits, 1, {**context, "batch_size": 1}),
        *_tick(policy, windows(data.stores[0], policy, 200), limits, {**context, "batch_size": 1}),
    ]


def step_cost(policy: DiffusionPolicy, batch_size: int) -> Cost:
    """What one step has to compute, and the parameters that it has to touch."""
    batch = zero_batch(policy, batch_size)
    policy.train()
    cost = count_cost(
        lambda: torch.autograd.backward(policy.loss(batch)), policy.parameters(), TOUCHES
    )
    policy.zero_grad(set_to_none=True)
    return cost


def zero_batch(policy: DiffusionPolicy, batch_size: int) -> Batch:
    """A batch of zeros, all of it valid."""
    return {
        "obs": zero_windows(policy.spec, policy.horizons, batch_size),
        "action": torch.zeros(batch_size, policy.horizons.pred, policy.spec.action.dim),
        "valid": torch.ones(batch_size, policy.horizons.pred, dtype=torch.bool),
    }


def zero_windows(spec: DataSpec, horizons: Horizons, batch_size: int) -> dict[str, Tensor]:
    """Windowed observations of zeros (B, To or W, *shape)."""
    lengths = {
        key: horizons.window if obs.modality == "wrench" else horizons.obs
        for key, obs in spec.obs.items()
    }
    return {
        key: torch.from_numpy(np.zeros((batch_size, lengths[key], *obs.shape), obs.dtype))
        for key, obs in spec.obs.items()
    }


def _forward_rows(policy: DiffusionPolicy, about: Context) -> list[Row]:
    """The step's "forward" in parts, measured after the training on a batch of zeros."""
    parts = forward_ms(policy, zero_batch(policy, about["batch_size"]), FORWARDS)
    return [
        Row("forward_ms", value, n=FORWARDS, unit="ms", context={**about, "part": part})
        for part, value in parts.items()
    ]


def _parts(policy: DiffusionPolicy, limits: Limits, batch_size: int, about: Context) -> list[Row]:
    """Encoder and denoiser: forward, and for batches that train also backward."""
    obs = zero_windows(policy.spec, policy.horizons, batch_size)
    draws = batch_size * policy.noise_samples if batch_size > 1 else 1
    context = policy.encode(obs).detach()[:1].expand(draws, -1, -1).contiguous()
    x = torch.zeros(draws, policy.horizons.pred, policy.spec.action.dim)
    level = torch.full((draws, 1), 0.5)
    works: dict[str, tuple[Callable[[], Tensor], torch.nn.Module]] = {
        "encode": (lambda: policy.encode(obs), policy.encoder),
        "denoise": (lambda: policy.denoiser(x, level, context), policy.denoiser),
    }
    rows = []
    for part, (forward, module) in works.items():
        modes: dict[str, Callable[[], object]] = {part: torch.inference_mode()(forward)}
        if batch_size > 1:
            modes[f"{part}_forward_backward"] = partial(_forward_backward, forward)
        for name, work in modes.items():
            cost = count_cost(work, module.parameters(), 3.0 if name != part else 1.0)
            took = _median_ms(work)
            rows += [
                Row("part_ms", took, unit="ms", context={**about, "part": name}),
                _ratio(name, cost, took, limits, about),
            ]
    return rows


def _forward_backward(forward: Callable[[], Tensor]) -> None:
    torch.autograd.backward(forward().sum())


def _tick(
    policy: DiffusionPolicy, observed: Sequence[Any], limits: Limits, about: Context
) -> list[Row]:
    """One update of the RTI controller with one evaluation."""
    controller = RTIController(policy, start_level=0.8, nfe=1)
    ticks = iter(range(10**9))

    def update() -> None:
        tick = next(ticks)
        controller.update(observed[tick % len(observed)], tick / policy.spec.rate_hz)

    update()  # the first one plans from noise
    cost = count_cost(update, policy.parameters())
    took = _median_ms(update)
    return [
        Row("part_ms", took, unit="ms", context={**about, "part": "tick"}),
        _ratio("tick", cost, took, limits, about),
    ]


def _ratio(part: str, cost: Cost, took_ms: float, limits: Limits, about: Context) -> Row:
    least_ms = 1e3 * limits.seconds(cost)
    binds = "memory" if cost.bytes / limits.bandwidth >= 1e-3 * least_ms else "compute"
    context = {**about, "part": part, "binds": binds, "limit_ms": round(least_ms, 4)}
    return Row("limit_ratio", least_ms / took_ms, context=context)


def _limit_rows(limits: Limits, about: Context) -> list[Row]:
    return [
        Row("peak", limits.gemm / 1e9, unit="GFLOP/s", context={**about, "part": "gemm"}),
        Row("peak", limits.conv / 1e9, unit="GFLOP/s", context={**about, "part": "conv"}),
        Row("peak", limits.bandwidth / 1e9, unit="GB/s", context={**about, "part": "memory"}),
    ]


def _median_ms(work: Callable[[], object]) -> float:
    for _ in range(3):
        work()
    taken: list[float] = []
    ends = time.perf_counter() + SECONDS_EACH
    while (started := time.perf_counter()) < ends or len(taken) < 5:
        work()
        taken.append(time.perf_counter() - started)
    return 1e3 * float(np.median(taken))
