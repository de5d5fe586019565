"""An untrained policy for the prying task that always pushes the blade the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from data.build import build
from data.spec import Horizons
from deploy.commands.usage import CONFIGS
from deploy.robot_io import STAND_STILL
from envs.pry.env import pry_spec
from policy.checkpoint import save_checkpoint
from policy.normalizer import Normalizer
from tests.tiny_policy import TINY_CONFIG, Bounds

SIZE = 32
PUSH = (0.002, 0.0, -0.001)  # [m] per tick: into the cell, too hard within about 2 s
HORIZONS = Horizons(obs=2, pred=8, window=16)
ENV = {
    "_target_": "envs.base.EnvFactory",
    "id": "Prise/Pry-v0",
    "kwargs": {"image_size": SIZE, "cameras": ["wrist", "scene"]},
}
CONTROLLER = {"_target_": "deploy.controllers.rti.RTIController", "cold_steps": 2}


def robot_config(name: str) -> dict[str, Any]:
    config = yaml.safe_load((CONFIGS / "robot" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert isinstance(config, dict)
    return config


def save_untrained_pry(path: Path) -> Path:
    """All action statistics are one point, so the policy can say nothing else."""
    spec = pry_spec(SIZE, ("wrist", "scene"))
    camera = {"_target_": "policy.encoders.vision.SmallResNet", "_partial_": True}
    encoder = {
        **TINY_CONFIG["encoder"],
        "encoders": {
            "wrist_rgb": camera,
            "scene_rgb": camera,
            "pose": {"_target_": "policy.encoders.state.StateMLP", "_partial_": True},
            "wrench": {"_target_": "policy.encoders.force.CausalConvEncoder", "_partial_": True},
        },
    }
    config = {**TINY_CONFIG, "encoder": encoder}
    policy = build(config, spec=spec, horizons=HORIZONS)
    stats = {key: Bounds(-np.ones(s.shape), np.ones(s.shape)) for key, s in spec.obs.items()}
    push = STAND_STILL.copy()
    push[:3] = PUSH
    stats["action"] = Bounds(push, push)
    policy.set_normalizer(Normalizer.fit(stats, spec))
    save_checkpoint(path, config, spec, HORIZONS, policy.state_dict())
    return path
