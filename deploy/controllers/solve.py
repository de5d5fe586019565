"""One solve of the policy, timed and counted: all controllers share it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.spec import DataSpec, Horizons, Obs
from deploy.controllers.budget import StepBudget
from policy.diffusion_policy import DiffusionPolicy, SolveState

STEP, FINISH = "step", "finish"  # parts of a solve that a budget knows: an evaluation, the rest


class Frames(Protocol):
    """An encoder that remembers what it has encoded."""

    def reset(self) -> None:
        """Forget all frames."""
        ...

    def encode(self, obs: Obs, batch: Mapping[str, Tensor]) -> Tensor:
        """Context (1, N, D) of the windows `obs`, which `batch` holds as tensors."""
        ...


@dataclass(frozen=True, eq=False)
class Plan:
    """What a solve gave and what it cost: actions (Tp, A) in physical units, NFE, seconds."""

    actions: NDArray[Any]
    nfe: int
    seconds: dict[str, float]


def to_batch(obs: Obs, spec: DataSpec, device: torch.device) -> dict[str, Tensor]:
    """The windowed observation as tensors with a batch dimension of 1."""
    return {key: torch.from_numpy(obs[key])[None].to(device) for key in spec.obs}


def empty_obs(spec: DataSpec, horizons: Horizons) -> dict[str, Tensor]:
    """Zeros of the shapes and types that `to_batch` gives, on the CPU."""
    lengths = {key: horizons.window if spec.is_fast(key) else horizons.obs for key in spec.obs}
    return {
        key: torch.from_numpy(np.zeros((1, lengths[key], *obs.shape), obs.dtype))
        for key, obs in spec.obs.items()
    }


def device_of(policy: DiffusionPolicy) -> torch.device:
    """Where the policy computes; an exported one has no weights of its own, but has buffers."""
    return policy.low.device


def seconds_now(device: torch.device) -> float:
    """Stamp once the device has finished what was asked of it [s]."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@torch.inference_mode()
def solve(
    policy: DiffusionPolicy,
    obs: Obs,
    generator: torch.Generator,
    begin: Mapping[str, Any],
    frames: Frames | None = None,
    budget: StepBudget | None = None,
) -> Plan:
    """Encode once, then denoise to the end; `begin` goes to `DiffusionPolicy.begin`.

    With `frames` only those are encoded that it does not know yet. With a `budget` fewer steps are
    made if time is short: a coarser list of levels, and if it runs out nevertheless, the chunk so
    far. One step is made in any case.
    """
    device = generator.device  # the policy's; looking through its parameters takes longer
    started = time.perf_counter()
    batch = to_batch(obs, policy.spec, device)
    context = policy.encode(batch) if frames is None else frames.encode(obs, batch)  # (1, N, D)
    encoded = seconds_now(device)
    if budget is None:
        state = policy.begin(context, generator=generator, **begin)
        while not state.done:
            state = policy.step(state)
        actions = _physical(policy, state)
    else:
        state, actions = _within(budget, policy, context, {**begin, "generator": generator})
    done = time.perf_counter()
    return Plan(actions, state.nfe, {"encode": encoded - started, "solve": done - encoded})


def _within(
    budget: StepBudget, policy: DiffusionPolicy, context: Tensor, begin: Mapping[str, Any]
) -> tuple[SolveState, NDArray[np.float64]]:
    device = context.device

    def step() -> SolveState:
        following = policy.step(state)
        seconds_now(device)  # what was only asked of a device has not been done
        return following

    steps = max(1, budget.count(STEP, begin["num_steps"], FINISH))
    state = policy.begin(context, **{**begin, "num_steps": steps})
    while not state.done and (state.nfe == 0 or budget.allows(STEP, FINISH)):
        state = budget.run(STEP, step)
    return state, budget.run(FINISH, lambda: _physical(policy, state))


def _physical(policy: DiffusionPolicy, state: SolveState) -> NDArray[np.float64]:
    """The chunk (Tp, A) of a solve so far, in physical units."""
    actions: NDArray[np.float64] = policy.actions(state)[0].double().cpu().numpy()
    return actions
