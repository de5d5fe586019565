"""The tick of an exported policy with one evaluation: two graphs, and memory that is made once."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Generator

from data.spec import Obs
from deploy.chunk import ActionChunk
from deploy.controllers.solve import Frames, Plan, empty_obs
from policy.backends.base import ExportedDenoiser, ExportedEncoder
from policy.diffusion_policy import DiffusionPolicy
from policy.samplers.base import level_list
from policy.warm_start import WarmStart


class Refinement:
    """What `solve` does with a prior and one step, without allocating anything for it.

        windowed observation --copied--> inputs         --encoder graph--> context
        last plan -----------shifted---> prior, noise   --refine graph---> actions

    The graphs are bound to these tensors, which stay where they are from tick to tick.
    """

    def __init__(
        self,
        policy: DiffusionPolicy,
        start_level: float,
        warm_start: WarmStart,
        frames: Frames | None = None,
    ) -> None:
        """With `frames` only those are encoded that it does not know yet."""
        encoder, denoiser = policy.encoder, policy.denoiser
        assert isinstance(encoder, ExportedEncoder)
        assert isinstance(denoiser, ExportedDenoiser)
        self._frames, self._encode, self._refine = frames, encoder.graph, denoiser.refine
        self._batch = empty_obs(policy.spec, policy.horizons)
        self._views = {key: x.numpy()[0] for key, x in self._batch.items()}
        self._inputs = tuple(self._batch[key] for key in encoder.keys)
        level = level_list(1, start_level, schedule=policy.schedule)[0].item()
        signal, sigma = warm_start.factors(level, policy.schedule)
        self._prior = torch.zeros(1, policy.horizons.pred, policy.spec.action.dim)
        self._prior_view = self._prior.numpy()[0]
        self._actions, self._actions_view = self._prior, self._prior_view
        self._noise, self._is_noisy = torch.zeros_like(self._prior), sigma > 0
        self._level = torch.full((1, 1), level)
        self._factors = torch.full((1, 1, 1), signal), torch.full((1, 1, 1), sigma)

    @torch.inference_mode()
    def __call__(self, obs: Obs, last: ActionChunk, stamp: float, generator: Generator) -> Plan:
        """The plan from `stamp` on; its actions are only good until the next call."""
        started = time.perf_counter()
        if self._frames is not None:
            context = self._frames.encode(obs, self._batch)
        else:
            for key, view in self._views.items():
                np.copyto(view, obs[key])
            context = self._encode(*self._inputs)
        encoded = time.perf_counter()
        np.copyto(self._prior_view, last.actions_from(stamp), casting="same_kind")
        if self._is_noisy:
            self._noise.normal_(generator=generator)
        actions = self._refine(self._prior, self._noise, self._level, *self._factors, context)
        if actions is not self._actions:  # an engine that writes to one place gives one tensor
            self._actions, self._actions_view = actions, actions[0].numpy()
        done = time.perf_counter()
        return Plan(self._actions_view, 1, {"encode": encoded - started, "solve": done - encoded})
