"""What the networks of a policy are fed with, to check exports and to calibrate them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from data.dataset import WindowDataset
from data.formats.zarr_store import DemoStore
from policy.backends.base import FrameGraph, Inputs
from policy.diffusion_policy import DiffusionPolicy
from policy.normalizer import ACTION

Obs = dict[str, Tensor]


@dataclass(frozen=True)
class Draws:
    """Inputs of each graph, one entry a draw with a batch of 1; `frames` empty without it."""

    encoder: Sequence[Inputs]
    frames: Sequence[Inputs]
    denoiser: Sequence[Inputs]
    refine: Sequence[Inputs]


def random_draws(policy: DiffusionPolicy, count: int, seed: int = 0) -> Draws:
    """Observations and chunks that fill the range of the network's units, levels uniform."""
    generator = torch.Generator().manual_seed(seed)
    pairs = [
        (_random_obs(policy, generator), _random_chunk(policy, generator)) for _ in range(count)
    ]
    return _draws(policy, pairs, torch.rand(count, generator=generator), generator)


def recorded_draws(policy: DiffusionPolicy, store: DemoStore, count: int, seed: int = 0) -> Draws:
    """Demonstrated windows and chunks, spread over the store, with levels denser near the data.

    What a denoiser's layers see changes with the level, so a calibration has to cover levels, and
    levels near the data matter most: PTQ4DM (Shang et al., 2023, "Post-training quantization on
    diffusion models", arXiv 2211.15736) draws them from a normal distribution whose mean lies on
    the side of the data, after finding that samples near it calibrate best; Q-Diffusion (Li et
    al., 2023, arXiv 2302.04304) takes samples from all steps. Here level = u^2 with u uniform: all
    levels occur, half of them below a quarter.
    """
    store.spec.check_provides(policy.spec, "the policy")
    dataset = WindowDataset(store, policy.horizons, policy.spec.obs)
    rng = np.random.default_rng(seed)
    batch = dataset.__getitems__(rng.integers(len(dataset), size=count).tolist())
    pairs = [
        ({key: value[i : i + 1] for key, value in batch["obs"].items()}, batch["action"][i : i + 1])
        for i in range(count)
    ]
    generator = torch.Generator().manual_seed(seed)
    return _draws(policy, pairs, torch.rand(count, generator=generator).square(), generator)


@torch.no_grad()
def _draws(
    policy: DiffusionPolicy,
    pairs: Sequence[tuple[Obs, Tensor]],
    levels: Tensor,
    generator: Generator,
) -> Draws:
    """The graphs' inputs for observations and chunks, both in physical units."""
    schedule, grid = policy.schedule, policy.schedule.num_levels
    encoder, frames, denoiser, refine = [], [], [], []
    graph = FrameGraph(policy) if FrameGraph.helps(policy) else None
    for (obs, chunk), drawn in zip(pairs, levels, strict=True):
        level = ((drawn * grid).ceil().clamp(min=1) / grid).reshape(1, 1)
        signal, sigma = schedule.alpha(level)[..., None], schedule.sigma(level)[..., None]
        noise = torch.randn(chunk.shape, generator=generator)
        context = policy.encode(obs)
        x = signal * policy.normalizer.normalize(ACTION, chunk) + sigma * noise
        encoder.append(tuple(obs[key] for key in policy.encoder.keys))
        if graph is not None:
            newest = {key: x[:, -1:] if key in graph.sizes else x for key, x in obs.items()}
            earlier = graph.tokens(obs)[:, :-1]
            frames.append((earlier, *(newest[key] for key in policy.encoder.keys)))
        denoiser.append((x, level, context))
        refine.append((chunk, noise, level, signal, sigma, context))
    return Draws(encoder, frames, denoiser, refine)


def _random_obs(policy: DiffusionPolicy, generator: Generator) -> Obs:
    spec, horizons = policy.spec, policy.horizons
    obs = {}
    for key in policy.encoder.keys:
        length = horizons.window if spec.obs[key].modality == "wrench" else horizons.obs
        shape = (1, length, *spec.obs[key].shape)
        x = policy.normalizer.unnormalize(key, 2 * torch.rand(shape, generator=generator) - 1)
        obs[key] = x.to(torch.from_numpy(np.empty(0, spec.obs[key].dtype)).dtype)
    return obs


def _random_chunk(policy: DiffusionPolicy, generator: Generator) -> Tensor:
    shape = (1, policy.horizons.pred, policy.spec.action.dim)
    return policy.normalizer.unnormalize(ACTION, 2 * torch.rand(shape, generator=generator) - 1)
