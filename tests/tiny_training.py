"""A policy and demonstrations so small that a training step takes a few milliseconds.

As a program, `python -m tests.tiny_training DEMOS RUN STEPS [resume] [stop]`, it is a run to be
killed, or one of several processes.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.spec import ActionSpec, DataSpec, Horizons, ObsSpec
from policy.config import TrainConfig
from policy.train import TrainSummary, train
from tests.tiny_store import write_store

HORIZONS = Horizons(obs=2, pred=4, window=4)
SPEC = DataSpec(
    obs={
        "pose": ObsSpec((3,), "state", "m", 10.0),
        "goal": ObsSpec((2,), "state", "m", 10.0),
        "rgb": ObsSpec((16, 16, 3), "image", "1/255", 10.0),
    },
    action=ActionSpec(("dx", "dy"), ("m", "m"), (-1.0, -1.0), (1.0, 1.0)),
    rate_hz=10.0,
)
CONFIG = TrainConfig(
    steps=20, batch_size=16, warmup_steps=4, log_every=5, save_every=1000, ema_decay=0.9, threads=1
)
# An epoch of the demonstrations: 75 windows, the last 11 dropped.
STEPS_PER_EPOCH = 4


class StoppedConfig(TrainConfig):
    """Gets its own process a SIGTERM, once, in the middle of step number `stop_after`."""

    stop_after: int

    def lr_at(self, step: int) -> float:
        if step + 1 == self.stop_after:
            object.__setattr__(self, "stop_after", 0)
            signal.raise_signal(signal.SIGTERM)
        return super().lr_at(step)


def stopped(config: TrainConfig, after: int) -> TrainConfig:
    told = StoppedConfig(**vars(config))
    object.__setattr__(told, "stop_after", after)
    return told


def policy_config(*keys: str, **state_options: Any) -> dict[str, Any]:
    state = _partial("policy.encoders.state.StateMLP", hidden=16, **state_options)
    # Crops are drawn from torch's default generator, so exactness has to cover that one too.
    image = _partial("policy.encoders.vision.SmallResNet", crop=0.5, channels=[8], num_keypoints=4)
    encoders = {key: image if key == "rgb" else state for key in keys or ("pose", "goal")}
    fusion = _partial("policy.encoders.fusion_concat.Concat", dim=16)
    return {
        "_target_": "policy.diffusion_policy.DiffusionPolicy",
        "encoder": _partial(
            "policy.encoders.obs_encoder.ObsEncoder", encoders=encoders, fusion=fusion
        ),
        "denoiser": _partial(
            "policy.denoisers.transformer.DiffusionTransformer", width=16, num_layers=2, num_heads=2
        ),
    }


def write_demos(path: Path, lengths: Sequence[int] = (10, 15, 12, 13, 14, 11)) -> Path:
    return write_store(path, lengths, SPEC).path


def train_tiny(
    demos: Path, run_dir: Path, config: TrainConfig = CONFIG, **options: Any
) -> TrainSummary:
    return train(config, policy_config(), HORIZONS, demos, run_dir, **options)


def _partial(target: str, **kwargs: Any) -> dict[str, Any]:
    return {"_target_": target, "_partial_": True, **kwargs}


def main(arguments: list[str]) -> None:
    demos, run_dir, steps, *rest = arguments
    config = replace(CONFIG, steps=int(steps), save_every=10)
    config = stopped(config, after=7) if "stop" in rest else config
    train_tiny(Path(demos), Path(run_dir), config, resume="resume" in rest)


if __name__ == "__main__":
    main(sys.argv[1:])
