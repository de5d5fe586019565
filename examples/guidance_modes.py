"""What guidance does to plans on demonstrations: is the prefix kept, is the rest still right?

    python examples/guidance_modes.py CHECKPOINT DATASET [DELAY] [EXEC_HORIZON] [NUM_STEPS]

Two plans per window, `EXEC_HORIZON` ticks apart, both from the demonstrated observations: a cold
one, and one that is steered to it. No robot and no simulation: seconds instead of hours. [mm]:
`prefix`  RMS error of the frozen prefix before it is put in
`jump`    mean of |new - old| in the first tick that is new
`bend`    mean of |first new action - last frozen one|; `demo` has that of the demonstration
`error`   RMS difference of the actions that would be executed to the demonstrated ones
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.dataset import WindowDataset
from data.formats.zarr_store import open_zarr
from policy.checkpoint import load_policy
from policy.diffusion_policy import DiffusionPolicy
from policy.guidance import DECAYS, MODES, Guidance, named_guidance, overlap_weights

WINDOWS, MILLIMETERS, TRANSLATION = 512, 1e3, slice(0, 3)


def plans(
    policy: DiffusionPolicy,
    context: Tensor,
    num_steps: int,
    prior: Tensor | None = None,
    guidance: Guidance | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Plans (B, Tp, A); the steered ones all start from the same noise."""
    state = policy.begin(
        context,
        num_steps=num_steps,
        prior=prior,
        guidance=guidance,
        weights=weights,
        generator=torch.Generator().manual_seed(0 if prior is None else 1),
    )
    while not state.done:
        state = policy.step(state)
    return policy.actions(state)


def row(new: Tensor, old: Tensor, demo: Tensor, delay: int, executed: int) -> list[float]:
    """The four figures of new plans (B, Tp, A) [mm]."""
    new, old, demo = (MILLIMETERS * x[..., TRANSLATION] for x in (new, old, demo))
    frozen = old if delay else new  # without a delay nothing is put in
    seam = slice(delay, delay + executed)
    prefix = (new - old)[:, :delay].square().sum(-1).mean().sqrt().item() if delay else 0.0
    jump = (new[:, delay] - old[:, delay]).norm(dim=-1).mean().item()
    bend = (new[:, delay] - frozen[:, max(delay - 1, 0)]).norm(dim=-1).mean().item()
    error = (new - demo)[:, seam].square().sum(-1).mean().sqrt().item()
    return [prefix, jump, bend, error]


@torch.no_grad()  # weights made in inference mode could not be differentiated through
def main() -> None:
    """Print a row a mode and schedule."""
    checkpoint, dataset, *numbers = sys.argv[1:]
    delay, executed, num_steps = (*map(int, numbers), *(2, 2, 5)[len(numbers) :])
    policy = load_policy(Path(checkpoint))
    data = WindowDataset(open_zarr(dataset), policy.horizons, policy.spec.obs)
    ticks = np.random.default_rng(0).choice(len(data) - executed, WINDOWS, replace=False)
    ticks = np.array([t for t in ticks if not np.isin(t + 1, data.store.episode_ends)])
    before, now = data.__getitems__(ticks.tolist()), data.__getitems__((ticks + executed).tolist())
    horizon = policy.horizons.pred
    old = plans(policy, policy.encode(before["obs"]), num_steps)
    index = torch.arange(executed, executed + horizon).clamp(max=horizon - 1)
    old, context, demo = old[:, index], policy.encode(now["obs"]), now["action"]

    def show(name: str, new: Tensor) -> None:
        print(f"{name:24}", *(f"{x:8.4f}" for x in row(new, old, demo, delay, executed)))

    print(f"{'':24}", *(f"{name:>8}" for name in ("prefix", "jump", "bend", "error")))
    show("demo", demo)
    show("cold", plans(policy, context, num_steps, torch.zeros_like(old), *no_guidance(horizon)))
    for mode in MODES:
        for decay in DECAYS:
            weights = overlap_weights(horizon, delay, horizon - executed, decay)
            guided = plans(policy, context, num_steps, old, named_guidance(mode), weights)
            show(f"{mode} {decay}", guided)


def no_guidance(horizon: int) -> tuple[Guidance, Tensor]:
    """Guidance to nothing: the same noise as all others."""
    return named_guidance("identity"), torch.zeros(horizon)


if __name__ == "__main__":
    main()
