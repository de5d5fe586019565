"""`prise bench overhead`: what a tick costs beside the networks.

The networks of the checkpoint are replaced by ones that do nothing. All else runs as on a robot:
history, shift, warm start, the way to physical units, blending into the old chunk, safety, stats.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from data.build import build
from data.results import print_table, write_results
from data.spec import DataSpec, Obs
from deploy.agent import LockstepAgent
from deploy.commands.simulation import percentile_rows, senses
from deploy.garbage import freeze_garbage_collector
from deploy.safety import SafetyLayer
from deploy.seam import SeamSettings
from policy.allocator import keep_freed_memory
from policy.checkpoint import load_policy
from policy.diffusion_policy import DiffusionPolicy

WARM_UP = 100  # ticks that do not count
PAUSE = 5e-4  # [s] between ticks: see deploy/bench/deadline.py
BLENDED = SeamSettings(blend_ticks=2)


class Unchanged(nn.Module):
    """A denoiser that takes its input for the answer."""

    def forward(self, x: Tensor, level: Tensor, context: Tensor) -> Tensor:
        """X itself."""
        return x


def run(config: dict[str, Any]) -> int:
    """Measure, write `results.json` into `out` and print its table."""
    if config["checkpoint"] is None:
        raise ValueError("bench overhead needs a policy for its shapes; add checkpoint=PATH.")
    if config["ticks"] < 1:
        raise ValueError(f"ticks must be at least 1, got {config['ticks']}.")
    keep_freed_memory()
    torch.set_num_threads(1)
    policy = without_networks(load_policy(Path(config["checkpoint"])))
    agent = LockstepAgent(
        build(config["controller"], policy=policy), policy.spec, policy.horizons, seam=BLENDED
    )
    freeze_garbage_collector()
    taken = measure(agent, SafetyLayer(policy.spec), config["ticks"])
    about = {"controller": config["choices"]["controller"], "obs": senses(policy.spec)}
    rows = [
        row
        for part, seconds in taken.items()
        for row in percentile_rows("overhead_ms", 1000 * seconds, "ms", {**about, "part": part})
    ]
    write_results(Path(config["out"]) / "results.json", "bench overhead", rows, [])
    print_table(rows)
    return 0


def without_networks(policy: DiffusionPolicy) -> DiffusionPolicy:
    """The same policy with an encoder and a denoiser that cost nothing."""
    context = torch.zeros(1, policy.encoder.num_tokens, policy.encoder.dim)
    policy.encode = lambda obs: context  # type: ignore[method-assign]  # costs nothing: that is the point
    policy.denoiser = Unchanged()
    return policy


def measure(
    agent: LockstepAgent, safety: SafetyLayer, ticks: int
) -> dict[str, NDArray[np.float64]]:
    """Seconds of each tick: of the controller, of all, and of safety."""
    spec, taken = agent.spec, {part: np.zeros(ticks) for part in ("all", "controller", "safety")}
    obs, period = made_up(spec), 1 / spec.rate_hz
    safety.enable(True)
    for tick in tqdm(range(-WARM_UP, ticks), desc="bench overhead", unit="tick", disable=None):
        time.sleep(PAUSE)
        stamp = tick * period
        started = time.perf_counter()
        action = agent.act(obs, stamp)
        acted = time.perf_counter()
        safety.sense(obs, stamp)
        safety.check(
            action.astype(np.float64), duration=period, now=stamp, valid_until=stamp + period
        )
        done = time.perf_counter()
        if tick >= 0:
            taken["all"][tick], taken["safety"][tick] = done - started, done - acted
    taken["controller"][:] = agent.stats()["tick_s"][-ticks:]
    return taken


def made_up(spec: DataSpec) -> Obs:
    """A raw observation of zeros, with a pose that is one."""
    obs = {key: np.zeros(spec.raw_shape(key), value.dtype) for key, value in spec.obs.items()}
    if "pose" in obs:
        obs["pose"][3], obs["pose"][7] = 1, 1
    return obs
