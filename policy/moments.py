"""Moments of recorded episodes and the ticks before them, encoded: what a calibration looks at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.dataset import WindowDataset
from data.formats.zarr_store import DatasetError, DemoStore
from data.mixture import fingerprint
from data.spec import DataSpec
from policy.diffusion_policy import DiffusionPolicy

HELDOUT, TRAINING = "heldout", "training"
BATCH = 32


@dataclass(frozen=True)
class Moments:
    """Contexts (H + 1, M, N, D), index k is k ticks ago; wrench rates [N/s] of them, if any."""

    contexts: Tensor
    wrench_rates: Tensor | None


def episodes_of(store: DemoStore, split: str, trained: Mapping[str, Any] | None) -> range:
    """Which episodes of `store` to look at, given what the checkpoint was trained on.

    Held out are those behind the training's where the store begins with them, and all of them
    where it is another dataset.
    """
    if split not in (HELDOUT, TRAINING):
        raise ValueError(f"split must be {HELDOUT} or {TRAINING}, got {split!r}.")
    every = range(store.num_episodes)
    count = 0 if trained is None else int(trained["episodes"])
    begins = 0 < count <= len(every) and trained == fingerprint(store, count)
    if split == TRAINING:
        return every[:count] if begins else every
    if begins and count == len(every):
        raise DatasetError(
            f"the checkpoint was trained on all {count} episodes of {store.path}; collect some "
            f"with other seeds, or add split={TRAINING} to calibrate on these all the same."
        )
    return every[count:] if begins else every


def choose_ticks(
    store: DemoStore, episodes: range, history: int, count: int, seed: int
) -> NDArray[np.int64]:
    """`count` ticks with `history` ticks of their episode before them, evenly spread, sorted."""
    ends = store.episode_ends
    starts = np.r_[0, ends[:-1]]
    eligible = [np.arange(starts[e] + history, ends[e], dtype=np.int64) for e in episodes]
    rows = np.concatenate(eligible) if eligible else np.zeros(0, np.int64)
    if len(rows) < count:
        raise DatasetError(
            f"{len(episodes)} episodes of {store.path} have {len(rows)} moments with {history} "
            f"ticks before them, wanted {count}; collect more or lower `moments`."
        )
    places = (np.arange(count) + np.random.default_rng(seed).random(count)) * len(rows) / count
    chosen: NDArray[np.int64] = rows[places.astype(np.int64)]
    return chosen


@torch.no_grad()
def read_moments(
    policy: DiffusionPolicy,
    store: DemoStore,
    ticks: NDArray[np.int64],
    history: int,
    progress: Callable[[], object] = lambda: None,
) -> Moments:
    """Windows of `ticks` and of the `history` ticks before each; `progress` after every batch."""
    store.spec.check_provides(policy.spec, "the policy")
    dataset = WindowDataset(store, policy.horizons, policy.spec.obs)
    key = wrench_key(policy.spec, policy.horizons.window)
    contexts, rates = [], []
    for start in range(0, len(ticks), BATCH):
        part = ticks[start : start + BATCH]
        # Neighbours together: they share chunks of the store.
        rows = (part[:, None] - np.arange(history + 1)).ravel()
        obs = dataset.__getitems__(rows.tolist())["obs"]
        context = policy.encode(obs)  # (B * (H + 1), N, D)
        contexts.append(context.view(len(part), history + 1, *context.shape[1:]))
        if key is not None:
            samples = policy.spec.samples_per_tick(key)
            rates.append(wrench_rate(obs[key], samples, policy.spec.rate_hz))
        progress()
    return Moments(torch.cat(contexts).transpose(0, 1), torch.cat(rates) if rates else None)


def wrench_key(spec: DataSpec, window: int) -> str | None:
    """The wrench whose window holds two ticks, so that its change can be seen; None without."""
    for key, obs in spec.obs.items():
        if obs.modality == "wrench" and spec.is_fast(key):
            return key if window >= 2 * spec.samples_per_tick(key) else None
    return None


def wrench_rate(window: Tensor, samples: int, rate_hz: float) -> Tensor:
    """Change of the mean force from the last tick to this one [N/s], (B,) of (B, W, 6)."""
    now = window[:, -samples:, :3].mean(1)
    before = window[:, -2 * samples : -samples, :3].mean(1)
    rate: Tensor = (now - before).norm(dim=-1) * rate_hz
    return rate
