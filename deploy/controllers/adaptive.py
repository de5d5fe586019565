"""Real-time iteration that looks at what one evaluation says before it believes the old plan."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.spec import Obs
from deploy.chunk import ActionChunk
from deploy.controllers.policy_controller import PolicyController
from deploy.controllers.rti import named_warm_start
from deploy.controllers.solve import Plan, seconds_now, to_batch
from policy.calibration import ESTIMATED, Calibration, calibrated_level, read_calibration
from policy.diffusion_policy import DiffusionPolicy, SolveState
from policy.level_grid import residual
from policy.moments import wrench_key, wrench_rate
from policy.samplers.base import Sampler, level_list
from policy.samplers.ddim import DDIM
from policy.start_level import continuous_groups


class AdaptiveController(PolicyController):
    """Accepts, re-noises or restarts each tick, by the residual of one evaluation.

        G = last plan, shifted     x0 = one evaluation of G taken to probe_level     r = |x0 - G|

        r <= accept                x0 is the plan                              1 NFE
        r <= restart               x0 is taken higher and denoised again       1 + raised_nfe
        r > restart                a plan from noise                           1 + cold_steps

    The two thresholds are quantiles of r on held-out episodes, from the checkpoint's calibration.
    A contact (the wrench changes faster than in nearly all ticks of those episodes) is treated as
    a residual above `accept` for `contact_ticks` ticks.

    Without a plan to start from it plans from noise in `cold_steps`.
    """

    def __init__(
        self,
        policy: DiffusionPolicy,
        probe_level: float | str = ESTIMATED,
        accept_quantile: float = 0.8,
        restart_quantile: float = 0.99,
        raised_nfe: int = 1,
        cold_steps: int = 10,
        contact_quantile: float = 0.98,
        contact_ticks: int = 3,
        warm_start: str = "renoised",
        sampler: Sampler | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        """`sampler` None is DDIM, `calibration` None the one of the policy's checkpoint.

        `contact_ticks` 0 ignores contacts.
        """
        calibration = read_calibration(policy) if calibration is None else calibration
        probe = calibrated_level(calibration, probe_level, warm_start, 1, 1)
        # As if the plan were as old as calibrated plans get: more of it is forgotten.
        oldest = max(choice.exec_horizon for choice in calibration.choices)
        raised = max(probe, calibration.level(oldest, raised_nfe))
        for steps, level in ((1, probe), (raised_nfe, raised), (cold_steps, 1.0)):
            level_list(steps, level, schedule=policy.schedule)  # a wrong number fails here
        _check_quantiles(accept_quantile, restart_quantile, contact_quantile, contact_ticks)
        self.probe_level, self.raised_level = probe, raised
        self.accept = calibration.residual(probe, accept_quantile)
        self.restart = calibration.residual(probe, restart_quantile)
        self._wrench = wrench_key(policy.spec, policy.horizons.window)
        self.contact_rate = calibration.contact_rate(contact_quantile)  # [N/s]
        self._contact_ticks = contact_ticks
        self._groups = continuous_groups(policy.spec.action)
        common = {"sampler": sampler or DDIM(), "warm_start": named_warm_start(warm_start)}
        self._probe: dict[str, Any] = {"num_steps": 1, "start_level": probe, **common}
        self._raise: dict[str, Any] = {"num_steps": raised_nfe, "start_level": raised, **common}
        self._cold: dict[str, Any] = {"num_steps": cold_steps, **common}
        super().__init__(policy)

    def reset(self, seed: int = 0) -> None:
        """Forget the previous plan and seed the noise: the next tick plans from noise."""
        super().reset(seed)
        self._contact_until = -np.inf
        self.last_residual = 0.0  # of the last tick, 0 where there was no plan to compare with

    def update(self, obs: Obs, stamp: float, delay: float = 0.0) -> ActionChunk:
        """A new chunk from `stamp` on."""
        return self._made(self._plan(obs, stamp), stamp)

    @torch.inference_mode()
    def _plan(self, obs: Obs, stamp: float) -> Plan:
        policy, last = self.policy, self._chunk
        started = seconds_now(self._device)
        batch = to_batch(obs, policy.spec, self._device)
        frames = self._frames
        context = policy.encode(batch) if frames is None else frames.encode(obs, batch)
        encoded = seconds_now(self._device)
        touched = self._in_contact(batch, stamp)
        if last is None or last.remaining(stamp) == 0:
            self.last_residual = 0.0
            state, nfe = self._solved(context, self._cold)
        else:
            prior = torch.from_numpy(last.actions_from(stamp).astype(np.float32))[None]
            state, nfe = self._adapted(context, prior.to(self._device), touched)
        actions = policy.actions(state)[0].double().cpu().numpy()  # (Tp, A)
        done = seconds_now(self._device)
        return Plan(actions, nfe, {"encode": encoded - started, "solve": done - encoded})

    def _adapted(self, context: Tensor, prior: Tensor, touched: bool) -> tuple[SolveState, int]:
        """The solve that the residual asks for, and all it took."""
        policy = self.policy
        guess = policy.begin(context, prior=prior, generator=self._generator, **self._probe)
        state = policy.step(guess)
        # Before its first step the solve's estimate is the prior in network units.
        r = float(residual(state.x0, guess.x0, self._groups))
        self.last_residual = r
        if r > self.restart:
            state, nfe = self._solved(context, self._cold)
        elif r > self.accept or touched:
            state, nfe = self._solved(context, self._raise, policy.actions(state))
        else:
            return state, 1
        return state, 1 + nfe

    def _solved(
        self, context: Tensor, begin: dict[str, Any], prior: Tensor | None = None
    ) -> tuple[SolveState, int]:
        state = self.policy.begin(context, prior=prior, generator=self._generator, **begin)
        while not state.done:
            state = self.policy.step(state)
        return state, state.nfe

    def _in_contact(self, batch: dict[str, Tensor], stamp: float) -> bool:
        """True from a sudden change of the wrench on, for `contact_ticks` ticks."""
        if self._wrench is None or self.contact_rate is None:
            return False
        samples = self.spec.samples_per_tick(self._wrench)
        rate = float(wrench_rate(batch[self._wrench], samples, self.spec.rate_hz))
        if rate > self.contact_rate:
            self._contact_until = stamp + (self._contact_ticks - 0.5) * self._dt
        return stamp < self._contact_until


def _check_quantiles(accept: float, restart: float, contact: float, contact_ticks: int) -> None:
    if not 0 <= accept <= restart <= 1 or not 0 <= contact <= 1 or contact_ticks < 0:
        raise ValueError(
            "wanted 0 <= accept_quantile <= restart_quantile <= 1, contact_quantile in 0..1 and "
            f"contact_ticks of 0 or more, got {accept}, {restart}, {contact} and {contact_ticks}."
        )
