"""A distribution over action chunks given observations, learned by denoising."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from data.spec import DataSpec, Horizons
from policy.encoders.obs_encoder import ObsEncoder
from policy.normalizer import ACTION, Normalizer
from policy.parameterization import X0, Parameterization
from policy.samplers.base import Evaluation, Sampler, level_values, noise_like
from policy.samplers.ddim import DDIM
from policy.schedule import CosineSchedule, Schedule
from policy.warm_start import ReNoised, WarmStart

COSINE, PREDICT_X0, DETERMINISTIC, RE_NOISED = CosineSchedule(), X0(), DDIM(), ReNoised()


@dataclass(frozen=True, slots=True)
class SolveState:
    """Where a solve is: everything the next step needs, in network units."""

    context: Tensor  # (B, N, D)
    x: Tensor  # (B, Tp, A) at levels[nfe]
    x0: Tensor  # (B, Tp, A) the best estimate so far; before the first step the prior, or 0
    levels: tuple[float, ...]
    sampler: Sampler
    generator: Generator | None = None
    nfe: int = 0
    history: Evaluation | None = None

    @property
    def done(self) -> bool:
        """True when level 0 is reached."""
        return self.nfe == len(self.levels) - 1


class DiffusionPolicy(nn.Module):
    """p(action chunk | observations). Weights and buffers only: who solves holds the state.

        context = policy.encode(obs)
        state = policy.begin(context, num_steps=10)
        while not state.done:              # may stop early: state.x0 is always a chunk
            state = policy.step(state)
        actions = policy.actions(state)

    Args:
        spec: Of the data; `policy.spec` keeps the keys that have an encoder.
        horizons: Window lengths.
        encoder: Constructor `(spec, horizons) -> ObsEncoder`.
        denoiser: Constructor `(action_dim, pred_horizon, context_dim) -> module`.
        schedule: How much noise a level is.
        parameterization: What the denoiser predicts.
        sampler: Used unless a solve names another one.
        noise_samples: Noise draws per encoded window in `loss`.
        level_power: Levels in `loss` are u ** level_power of a uniform u; below 1 more noise, which
            is what few network evaluations have to deal with.
        companding: mu of a mu-law for actions that are increments, 0 for a linear map: resolution
            where motions are small.
        normalizer: Fitted, with the same companding; without one, load weights that hold it.
        clip: Estimates are clipped to [-clip, clip]; demonstrations lie in [-1, 1].
    """

    def __init__(
        self,
        spec: DataSpec,
        horizons: Horizons,
        encoder: Callable[..., ObsEncoder],
        denoiser: Callable[..., nn.Module],
        schedule: Schedule = COSINE,
        parameterization: Parameterization = PREDICT_X0,
        sampler: Sampler = DETERMINISTIC,
        noise_samples: int = 1,
        level_power: float = 1.0,
        companding: float = 0.0,
        normalizer: Normalizer | None = None,
        clip: float = 1.1,
    ) -> None:
        super().__init__()
        if noise_samples < 1 or clip < 1 or not level_power > 0:
            raise ValueError(
                "noise_samples and clip must be at least 1, level_power above 0, got "
                f"{noise_samples}, {clip} and {level_power}."
            )
        self.encoder = encoder(spec=spec, horizons=horizons)
        self.spec, self.horizons = spec.select(self.encoder.keys), horizons
        self.denoiser = denoiser(
            action_dim=spec.action.dim,
            pred_horizon=horizons.pred,
            context_dim=self.encoder.context_dim,
        )
        self.normalizer = Normalizer(self.spec, companding)
        if normalizer is not None:
            self.set_normalizer(normalizer)
        self.schedule, self.parameterization, self.sampler = schedule, parameterization, sampler
        self.noise_samples, self.level_power = noise_samples, level_power
        self.companding, self.clip = companding, clip
        self.folder: Path | None = None  # of the checkpoint it was loaded from
        self.low: Tensor
        self.high: Tensor
        self.register_buffer("low", torch.tensor(spec.action.low), persistent=False)
        self.register_buffer("high", torch.tensor(spec.action.high), persistent=False)

    def set_normalizer(self, normalizer: Normalizer) -> None:
        """Copy the limits of the keys that this policy uses."""
        limits, wanted = normalizer.state_dict(), self.normalizer.state_dict()
        if missing := sorted(wanted.keys() - limits.keys()):
            raise ValueError(
                f"The normalizer lacks {missing}; fit it with a spec that holds all of "
                f"{sorted(self.spec.obs)}."
            )
        self.normalizer.load_state_dict({key: limits[key] for key in wanted})

    def loss(self, batch: Mapping[str, Any], generator: Generator | None = None) -> Tensor:
        """Mean squared error of the denoiser over valid actions; a scalar.

        Windows are encoded once and denoised `noise_samples` times. One level per chunk, on the
        schedule's grid without 0.
        """
        self.normalizer.check_fitted()
        draws = self.noise_samples
        context = self.encode(batch["obs"]).repeat(draws, 1, 1)
        x0 = self.normalizer.normalize(ACTION, batch["action"]).repeat(draws, 1, 1)
        level = self._draw_levels(len(x0), generator).to(x0)  # (B, 1)
        eps = noise_like(x0, generator)
        broadcast = level[..., None]
        x = self.schedule.alpha(broadcast) * x0 + self.schedule.sigma(broadcast) * eps
        out = self.denoiser(x, level, context)
        target = self.parameterization.target(x0, eps, broadcast, self.schedule)
        valid = batch["valid"].to(x0).repeat(draws, 1)  # (B, Tp)
        error = (out - target).square().mean(-1)  # (B, Tp)
        mean: Tensor = (error * valid).sum() / valid.sum().clamp(min=1)
        return mean

    def encode(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Windowed observations in physical units to context (B, N, D)."""
        normalized = {key: self.normalizer.normalize(key, obs[key]) for key in self.encoder.keys}
        context: Tensor = self.encoder(normalized)
        return context

    def begin(
        self,
        context: Tensor,
        *,
        num_steps: int,
        start_level: float = 1.0,
        prior: Tensor | None = None,
        warm_start: WarmStart = RE_NOISED,
        sampler: Sampler | None = None,
        generator: Generator | None = None,
    ) -> SolveState:
        """A solve before its first step.

        Args:
            context: From `encode`.
            num_steps: Network evaluations until level 0.
            start_level: Level of the first iterate; below 1 only with a prior.
            prior: Earlier solution (B, Tp, A) in physical units, already shifted to now.
            warm_start: How the prior is taken to `start_level`.
            sampler: The policy's own if None.
            generator: Source of all noise; torch's default one if None.
        """
        levels = level_values(num_steps, start_level, self.schedule.num_levels)
        shape = (len(context), self.horizons.pred, self.spec.action.dim)
        if prior is None:
            if levels[0] < 1:
                raise ValueError(f"start_level {start_level} needs a prior; start from 1 without.")
            x0 = context.new_zeros(shape)
            x = noise_like(x0, generator)
        else:
            if prior.shape != shape:
                raise ValueError(f"The prior has shape {tuple(prior.shape)}, wanted {shape}.")
            x0 = self.normalizer.normalize(ACTION, prior.to(context)).clamp(-self.clip, self.clip)
            x = warm_start(x0, levels[0], self.schedule, generator)
        return SolveState(context, x, x0, levels, sampler or self.sampler, generator)

    def step(self, state: SolveState) -> SolveState:
        """The solve one network evaluation further."""
        if state.done:
            raise ValueError(f"The solve is done after {state.nfe} steps; begin a new one.")
        x, level, level_next = state.x, state.levels[state.nfe], state.levels[state.nfe + 1]
        out = self.denoiser(x, x.new_full((len(x), 1), level), state.context)
        x0 = self.parameterization.to_x0(out, x, level, self.schedule).clamp(-self.clip, self.clip)
        x_next = state.sampler.step(
            x, x0, level, level_next, self.schedule, state.history, state.generator
        )
        return SolveState(
            state.context,
            x_next,
            x0,
            state.levels,
            state.sampler,
            state.generator,
            state.nfe + 1,
            Evaluation(x0, level),
        )

    def actions(self, state: SolveState) -> Tensor:
        """The chunk (B, Tp, A) so far, in physical units, within the spec's bounds."""
        return self.normalizer.unnormalize(ACTION, state.x0).clamp(self.low, self.high)

    @torch.inference_mode()
    def sample(self, obs: Mapping[str, Tensor], num_steps: int, **options: Any) -> Tensor:
        """Encode and solve in one go; `options` are those of `begin`."""
        state = self.begin(self.encode(obs), num_steps=num_steps, **options)
        while not state.done:
            state = self.step(state)
        return self.actions(state)

    def _draw_levels(self, count: int, generator: Generator | None) -> Tensor:
        """Levels (count, 1) = u ** level_power on the schedule's grid, u evenly spread over (0, 1].

        One random offset and equal distances (Kingma et al. 2021, appendix I.1): no step sees
        mostly easy levels. Draws of one window are a 1 / noise_samples apart.
        """
        device = None if generator is None else generator.device
        offset = torch.rand(1, generator=generator, device=device, dtype=torch.float64)
        u = (offset + torch.arange(count, device=device) / count).remainder(1)
        grid = self.schedule.num_levels
        ticks = (grid * (1 - u) ** self.level_power).ceil().clamp(1, grid)  # 1 - u is in (0, 1]
        return (ticks / grid).float()[:, None]
