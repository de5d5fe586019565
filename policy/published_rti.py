"""The stepping of RTI-DP's published code, for comparison; see docs/controllers/rti_paper.md."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Generator, Tensor

from policy.diffusion_policy import DiffusionPolicy
from policy.samplers.ddpm import DDPM
from policy.schedule import Schedule

CLIP = 1.0  # diffusers' clip_sample_range


def check_steps(steps: Sequence[int], schedule: Schedule) -> tuple[int, ...]:
    """The steps as they came; ValueError unless whole numbers fall from below N to 0."""
    grid = schedule.num_levels
    whole = all(isinstance(t, int) and not isinstance(t, bool) for t in steps)
    falling = whole and all(a > b for a, b in pairwise(steps))
    if not falling or not steps or steps[0] >= grid or steps[-1] != 0:
        raise ValueError(
            f"steps must be whole numbers that fall from at most {grid - 1} (the schedule has "
            f"{grid} levels) to 0, as [3,1,0]; got {list(steps)}."
        )
    return tuple(steps)


def published_steps(
    policy: DiffusionPolicy,
    context: Tensor,
    x: Tensor,
    steps: Sequence[int],
    schedule: Schedule,
    generator: Generator | None,
) -> Tensor:
    """`x` (B, Tp, A) in network units after one network evaluation for each t of `steps`.

    The network is told t, and x goes from t to t - 1 by the posterior of DDPM, whatever comes next
    in `steps`: on [3, 1, 0] what the network is told is 1 has been denoised to 2 only. Step t of
    diffusers is level (t + 1) / N here, and level 0 is what it calls -1.
    """
    grid, posterior = schedule.num_levels, DDPM()
    for t in steps:
        level, below = (t + 1) / grid, t / grid
        out = policy.denoiser(x, x.new_full((len(x), 1), level), context)
        x0 = policy.parameterization.to_x0(out, x, level, schedule).clamp(-CLIP, CLIP)
        x = posterior.step(x, x0, level, below, schedule, generator=generator)
    return x
