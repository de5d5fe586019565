"""Real-time iteration as RTI-DP's published code does it, to compare with."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from data.spec import Obs
from deploy.chunk import ActionChunk
from deploy.controllers.policy_controller import PolicyController
from deploy.controllers.solve import seconds_now, to_batch
from policy.diffusion_policy import DiffusionPolicy
from policy.discrete import soften
from policy.normalizer import ACTION
from policy.published_rti import check_steps, published_steps
from policy.samplers.base import noise_like
from policy.schedule import LinearSchedule, Schedule

TREATMENTS = ("none", "clip", "scale")


class RTIPaperController(PolicyController):
    """Duan et al. (2025), RTI-DP, arXiv 2508.05396: algorithm 1 with the stepping of their code.

        last x --shift by one, repeat the last--> x --one DDPM step per t of `steps`--> x, executed

    No noise and no factor in between: the clean chunk stands for one at `steps[0]`. The shift is
    one action an update, however much time has passed. The first plan takes all N levels. Unlike
    theirs, `reset` forgets the chunk.
    """

    def __init__(
        self,
        policy: DiffusionPolicy,
        steps: Sequence[int] = (3, 1, 0),
        discrete: str = "clip",
        discrete_factor: float = 10.0,
        schedule_as_published: bool = False,
    ) -> None:
        """`schedule_as_published` steps by betas from 1e-4 to 0.02 whatever was trained with."""
        if discrete not in TREATMENTS or not discrete_factor >= 1:
            raise ValueError(
                f"discrete must be one of {', '.join(TREATMENTS)} and discrete_factor at least 1, "
                f"got {discrete!r} and {discrete_factor}."
            )
        self._schedule: Schedule = policy.schedule
        if schedule_as_published:
            self._schedule = LinearSchedule(policy.schedule.num_levels)
        self._steps = check_steps(steps, self._schedule)
        self._discrete, self._factor = discrete, discrete_factor
        super().__init__(policy)

    def reset(self, seed: int = 0) -> None:
        """Forget the guess and seed the noise: the next tick plans from noise."""
        super().reset(seed)
        self._guess: Tensor | None = None  # (1, Tp, A) in network units

    @torch.inference_mode()
    def update(self, obs: Obs, stamp: float, delay: float = 0.0) -> ActionChunk:
        """A new chunk from `stamp` on."""
        policy, generator = self.policy, self._generator
        started = time.perf_counter()
        batch = to_batch(obs, policy.spec, generator.device)
        frames = self._frames
        context = policy.encode(batch) if frames is None else frames.encode(obs, batch)
        encoded = seconds_now(generator.device)
        x, steps = self._first_iterate(context)
        x = published_steps(policy, context, x, steps, self._schedule, generator)
        actions = self._executed(x)[0].double().cpu().numpy()  # (Tp, A)
        done = time.perf_counter()
        self._guess = self._kept(x)
        self.last_nfe = len(steps)
        self.last_seconds = {"encode": encoded - started, "solve": done - encoded}
        return ActionChunk(actions, stamp, self._dt)

    def _first_iterate(self, context: Tensor) -> tuple[Tensor, Sequence[int]]:
        """What is denoised, and the steps that do it."""
        guess, policy = self._guess, self.policy
        if guess is not None:
            return torch.cat([guess[:, 1:], guess[:, -1:]], 1), self._steps
        empty = context.new_zeros(len(context), policy.horizons.pred, policy.spec.action.dim)
        return noise_like(empty, self._generator), range(self._schedule.num_levels - 1, -1, -1)

    def _kept(self, x: Tensor) -> Tensor:
        """`scale` means that the data were scaled: then the guess stays as it is."""
        how = "clip" if self._discrete == "clip" else "none"
        return soften(x, self.policy.spec.action.discrete, how, self._factor)

    def _executed(self, x: Tensor) -> Tensor:
        """Physical units within the bounds; a discrete dimension is at one end of its range."""
        policy, discrete = self.policy, self.policy.spec.action.discrete
        if self._discrete != "none":
            x = soften(x, discrete, "clip", 1.0)
        return policy.normalizer.unnormalize(ACTION, x).clamp(policy.low, policy.high)
