"""One solve with a level per action, timed and counted; and the policies that it takes."""

from __future__ import annotations

import time
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.spec import Obs
from deploy.controllers.solve import Frames, Plan, seconds_now, to_batch
from policy import level_path
from policy.backends.base import ExportedDenoiser
from policy.diffusion_policy import DiffusionPolicy
from policy.level_path import PathState
from policy.level_plan import LevelPlan
from policy.normalizer import ACTION

Trained = TypeVar("Trained", bound=LevelPlan)


def trained_with(policy: DiffusionPolicy, wanted: type[Trained], controller: str) -> Trained:
    """How the policy's levels were drawn in training; ValueError unless it is as `wanted`."""
    levels = policy.levels
    if not isinstance(levels, wanted):
        raise ValueError(
            f"controller {controller} needs a policy trained with levels={wanted.name}, this one "
            f"was trained with levels={levels.name}: train one with `prise train "
            f"levels={wanted.name}`, or choose another controller."
        )
    if isinstance(policy.denoiser, ExportedDenoiser):
        raise ValueError(
            f"controller {controller} needs a level per action, an exported denoiser takes one for "
            "the chunk: use backend=eager."
        )
    return levels


def check_exec_horizon(exec_horizon: int, most: int, what: str) -> None:
    """ValueError unless so many actions can be executed of each plan."""
    if not 1 <= exec_horizon <= most:
        raise ValueError(f"exec_horizon {exec_horizon} must be in 1..{most}, {what}.")


@torch.inference_mode()
def solve_path(
    policy: DiffusionPolicy, obs: Obs, begin: dict[str, Any], frames: Frames | None
) -> tuple[Plan, PathState]:
    """Encode once, then denoise to the end; `begin` goes to `level_path.begin`."""
    device = policy.low.device
    started = time.perf_counter()
    batch = to_batch(obs, policy.spec, device)
    context = policy.encode(batch) if frames is None else frames.encode(obs, batch)  # (1, N, D)
    encoded = seconds_now(device)
    state = level_path.begin(policy, context, **begin)
    while not state.done:
        state = level_path.step(policy, state)
    actions = level_path.actions(policy, state)[0].double().cpu().numpy()  # (Tp, A)
    done = time.perf_counter()
    seconds = {"encode": encoded - started, "solve": done - encoded}
    return Plan(actions, state.nfe, seconds), state


def in_network_units(policy: DiffusionPolicy, actions: NDArray[np.float64]) -> Tensor:
    """Actions (n, A) in physical units as (1, n, A) where the policy computes."""
    physical = torch.from_numpy(actions.astype(np.float32))[None].to(policy.low.device)
    return policy.normalizer.normalize(ACTION, physical).clamp(-policy.clip, policy.clip)
