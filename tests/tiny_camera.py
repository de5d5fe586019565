"""A small untrained policy that looks through two cameras, two frames at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data.build import build
from data.spec import Horizons, Obs
from envs.pry.env import pry_spec
from policy.checkpoint import save_checkpoint
from policy.diffusion_policy import DiffusionPolicy
from policy.normalizer import Normalizer
from tests.tiny_policy import TINY_CONFIG, Bounds

CAMERA_HORIZONS = Horizons(obs=2, pred=8, window=16)


def camera_config() -> dict[str, Any]:
    encoders = {
        "wrist_rgb": {"_target_": "policy.encoders.vision.SmallResNet", "_partial_": True},
        "scene_rgb": {
            "_target_": "policy.encoders.vision.SmallResNet",
            "_partial_": True,
            "pool": "tokens",
        },
        "pose": {"_target_": "policy.encoders.state.StateMLP", "_partial_": True},
        "wrench": {"_target_": "policy.encoders.force.CausalConvEncoder", "_partial_": True},
    }
    return {**TINY_CONFIG, "encoder": {**TINY_CONFIG["encoder"], "encoders": encoders}}


def camera_policy(horizons: Horizons = CAMERA_HORIZONS) -> DiffusionPolicy:
    spec = pry_spec(32, ("wrist", "scene"))
    policy = build(camera_config(), spec=spec, horizons=horizons)
    assert isinstance(policy, DiffusionPolicy)
    stats = {key: Bounds(-np.ones(s.shape), np.ones(s.shape)) for key, s in spec.obs.items()}
    stats["action"] = Bounds(np.array(spec.action.low), np.array(spec.action.high))
    policy.set_normalizer(Normalizer.fit(stats, spec))
    return policy.eval().requires_grad_(False)


def save_camera_checkpoint(path: Path, horizons: Horizons = CAMERA_HORIZONS) -> Path:
    policy = camera_policy(horizons)
    save_checkpoint(path, camera_config(), policy.spec, horizons, policy.state_dict())
    return path


def camera_obs(policy: DiffusionPolicy, seed: int = 0) -> Iterator[Obs]:
    """Raw observations without end, no two frames the same."""
    rng = np.random.default_rng(seed)
    while True:
        obs = {}
        for key, spec in policy.spec.obs.items():
            shape = policy.spec.raw_shape(key)
            is_image = spec.modality == "image"
            value = rng.integers(0, 256, shape) if is_image else rng.normal(size=shape)
            obs[key] = value.astype(spec.dtype)
        yield obs
