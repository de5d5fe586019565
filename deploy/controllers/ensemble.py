"""Temporal ensembling: the action of a moment is the mean of what all chunks say about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from data.rotation import orthonormalized, rot6d_places
from data.spec import ActionSpec, DataSpec, Obs
from deploy.chunk import ROUNDING, ActionChunk
from deploy.controllers.base import Controller
from deploy.controllers.cold import ColdController
from policy.diffusion_policy import DiffusionPolicy

FAVOURS = ("oldest", "newest")
Array = NDArray[np.float64]


class EnsembleController:
    """Temporal ensemble (Zhao et al. 2023, ACT, algorithm 2) over the chunks of any controller.

        chunk 0   |a00 a01 a02 a03|
        chunk 1       |a10 a11 a12 a13|           action at t: sum_k w_k a_k(t) / sum_k w_k
        chunk 2           |a20 a21 a22 a23|       w_k = exp(-decay (t0_k - t0_oldest) / dt)
                           ^ t

    With `favour: newest` the sign in the exponent is the other one. Chunks are met at stamps and
    not at indices, so updates may come at any time; a delay changes nothing but which of the
    actions are executed.
    """

    def __init__(
        self,
        policy: DiffusionPolicy,
        planner: Callable[..., Controller] | None = None,
        decay: float = 0.01,
        favour: str = "oldest",
    ) -> None:
        """`planner`, given `policy`, makes the controller; None is DDIM-10 from noise each tick."""
        if not decay >= 0 or favour not in FAVOURS:
            raise ValueError(
                f"decay must be at least 0 and favour one of {', '.join(FAVOURS)}, got {decay} and "
                f"{favour!r}."
            )
        make = partial(ColdController, exec_horizon=1) if planner is None else planner
        self._planner: Controller = make(policy=policy)
        self._growth = decay if favour == "newest" else -decay
        self.reset()

    @property
    def spec(self) -> DataSpec:
        """Observations and actions the planner needs."""
        return self._planner.spec

    def reset(self, seed: int = 0) -> None:
        """Forget all chunks, here and in the planner."""
        self._planner.reset(seed)
        self._chunks: list[ActionChunk] = []
        self.last_nfe = self._planner.last_nfe
        self.last_seconds = self._planner.last_seconds

    def update(self, obs: Obs, stamp: float, delay: float = 0.0) -> ActionChunk:
        """The mean of the chunks from `stamp` on, as far as the planner's newest one reaches."""
        chunk = self._planner.update(obs, stamp, delay)
        self.last_nfe, self.last_seconds = self._planner.last_nfe, self._planner.last_seconds
        if not self._chunks or chunk is not self._chunks[-1]:
            self._chunks.append(chunk)
        self._chunks = [c for c in self._chunks if c.remaining(stamp) > 0 or c is chunk]
        return ensemble(self._chunks, stamp, self._growth, self.spec.action)


def ensemble(
    chunks: Sequence[ActionChunk], stamp: float, growth: float, spec: ActionSpec
) -> ActionChunk:
    """The weighted mean of `chunks`, oldest first, seen from `stamp`; w = exp(growth t0 / dt).

    Discrete dimensions are never averaged: they are the newest chunk's. A majority would hold a
    gripper for half a chunk after the observation that says to open it; flicker is for whoever
    sends the command to suppress. Means of rotations are made rotations again.
    """
    newest, dt = chunks[-1], chunks[-1].dt
    reach = max(1, int(np.ceil((newest.end - stamp) / dt - ROUNDING)))
    stamps = stamp + dt * np.arange(reach)  # (n,) starts of the actions
    ends = np.array([chunk.end for chunk in chunks])[:, None] - ROUNDING * dt
    said = stamps < ends  # (K, n): the chunk says something about the moment
    said[-1] = True
    exponents = growth * (np.array([chunk.t0 for chunk in chunks]) - newest.t0) / dt  # (K,)
    exponents = np.where(said, exponents[:, None], -np.inf)  # (K, n)
    weights = np.exp(exponents - exponents.max(0))  # the largest is 1, however large the decay
    weights /= weights.sum(0)
    stacked = np.stack([_first_actions(chunk, stamp, reach) for chunk in chunks])  # (K, n, A)
    actions: Array = np.einsum("kn,kna->na", weights, stacked)
    for place in rot6d_places(spec.names):
        actions[:, place] = orthonormalized(actions[:, place], instead=stacked[-1][:, place])
    discrete = list(spec.discrete)
    actions[:, discrete] = [newest.at(moment)[discrete] for moment in stamps]
    # A rotation near the bounds of its entries can be made to cross them.
    return ActionChunk(np.clip(actions, spec.low, spec.high), stamp, dt)


def _first_actions(chunk: ActionChunk, stamp: float, count: int) -> Array:
    """`count` actions from `stamp` on; a short chunk repeats its last."""
    actions = chunk.actions_from(stamp)
    return actions.take(np.arange(count), axis=0, mode="clip")
