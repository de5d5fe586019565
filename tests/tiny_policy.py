"""A small real policy for the tiny task: untrained, but with every part and no zero weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from data.build import build
from data.spec import Horizons
from policy.checkpoint import save_checkpoint
from policy.diffusion_policy import DiffusionPolicy
from policy.normalizer import Normalizer
from tests.tiny_env import TINY_SPEC

TINY_HORIZONS = Horizons(obs=2, pred=8, window=16)
TINY_CONFIG: dict[str, Any] = {
    "_target_": "policy.diffusion_policy.DiffusionPolicy",
    "encoder": {
        "_target_": "policy.encoders.obs_encoder.ObsEncoder",
        "_partial_": True,
        "encoders": {
            key: {"_target_": f"policy.encoders.{target}", "_partial_": True, "dim": 16}
            for key, target in {
                "pose": "state.StateMLP",
                "goal": "state.StateMLP",
                "wrench": "force.CausalConvEncoder",
            }.items()
        },
        "fusion": {
            "_target_": "policy.encoders.fusion_concat.Concat",
            "_partial_": True,
            "dim": 16,
        },
    },
    "denoiser": {
        "_target_": "policy.denoisers.transformer.DiffusionTransformer",
        "_partial_": True,
        "width": 32,
        "num_layers": 1,
        "num_heads": 2,
    },
}


class Bounds(NamedTuple):
    """As much of a key's statistics as the normalizer looks at."""

    min: NDArray[np.float64]
    max: NDArray[np.float64]


def tiny_policy(seed: int = 0) -> DiffusionPolicy:
    policy = build(TINY_CONFIG, spec=TINY_SPEC, horizons=TINY_HORIZONS)
    assert isinstance(policy, DiffusionPolicy)
    action = TINY_SPEC.action
    stats = {key: Bounds(-np.ones(s.shape), np.ones(s.shape)) for key, s in TINY_SPEC.obs.items()}
    stats["action"] = Bounds(np.array(action.low), np.array(action.high))
    policy.set_normalizer(Normalizer.fit(stats, TINY_SPEC))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in policy.parameters():  # zero-initialised outputs would hide every mistake
            weight.normal_(0.0, 0.2, generator=generator)
    return policy.eval().requires_grad_(False)


def save_tiny_checkpoint(path: Path) -> Path:
    policy = tiny_policy()
    save_checkpoint(path, TINY_CONFIG, policy.spec, TINY_HORIZONS, policy.state_dict())
    return path
