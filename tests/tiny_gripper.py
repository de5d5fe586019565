"""The tiny task with a gripper: one discrete dimension at the end of the action."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from data.build import build
from data.spec import ActionSpec
from policy.diffusion_policy import DiffusionPolicy
from policy.normalizer import Normalizer
from tests.tiny_env import TINY_SPEC
from tests.tiny_policy import TINY_CONFIG, TINY_HORIZONS, Bounds

_TOOL = TINY_SPEC.action
GRIPPER = _TOOL.dim
GRIPPER_SPEC = replace(
    TINY_SPEC,
    action=ActionSpec(
        names=(*_TOOL.names, "gripper"),
        units=(*_TOOL.units, "1"),
        low=(*_TOOL.low, -1.0),
        high=(*_TOOL.high, 1.0),
        discrete=(GRIPPER,),
    ),
)


def gripper_policy(**config: Any) -> DiffusionPolicy:
    policy = build({**TINY_CONFIG, **config}, spec=GRIPPER_SPEC, horizons=TINY_HORIZONS)
    assert isinstance(policy, DiffusionPolicy)
    action = GRIPPER_SPEC.action
    stats = {k: Bounds(-np.ones(s.shape), np.ones(s.shape)) for k, s in GRIPPER_SPEC.obs.items()}
    stats["action"] = Bounds(np.array(action.low), np.array(action.high))
    policy.set_normalizer(Normalizer.fit(stats, GRIPPER_SPEC))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.normal_(0.0, 0.2, generator=generator)
    return policy.eval().requires_grad_(False)
