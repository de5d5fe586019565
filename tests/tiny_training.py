"""A policy and demonstrations so small that a training step takes a few milliseconds.

As a program, `python -m tests.tiny_training DEMOS RUN STEPS [WORD ...]`, it is a run to be
killed, or one of several processes; `main` has the words.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

import policy.diffusion_policy
import policy.train
from data.spec import ActionSpec, DataSpec, Horizons, ObsSpec
from policy.checkpoint import Checkpoint, save_checkpoint
from policy.config import TrainConfig
from policy.diffusion_policy import DiffusionPolicy
from policy.processes import all_whole
from policy.train import TrainSummary, train
from policy.train_state import TrainState
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
    demos: Path,
    run_dir: Path,
    config: TrainConfig = CONFIG,
    keys: Sequence[str] = (),
    **options: Any,
) -> TrainSummary:
    return train(config, policy_config(*keys), HORIZONS, demos, run_dir, **options)


def _partial(target: str, **kwargs: Any) -> dict[str, Any]:
    return {"_target_": target, "_partial_": True, **kwargs}


def draw_by_window() -> None:
    """From now on a window's noise follows from its place in the joint batch alone."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    generator = torch.Generator().manual_seed(0)
    levels = torch.rand(CONFIG.batch_size, 1, generator=generator)[rank::world]
    shape = (CONFIG.batch_size, HORIZONS.pred, SPEC.action.dim)
    eps = torch.randn(shape, generator=generator)[rank::world]
    setattr(DiffusionPolicy, "_draw_levels", lambda *_: levels)  # noqa: B010 (mypy)
    setattr(policy.diffusion_policy, "noise_like", lambda *_: eps)  # noqa: B010


class WitnessedState(TrainState):
    """Writes what it is right after it was resumed, into `resumed/` beside the checkpoint."""

    def unpack(self, saved: Checkpoint) -> None:
        super().unpack(saved)
        spread = self._accelerator.num_processes > 1 and "sharded" in sys.argv
        for tensor in (*self.policy.parameters(), *self.ema.state_dict()["average"].values()):
            assert isinstance(tensor, DTensor) == spread
        state, average = self.pack(), all_whole(self.ema.weights(self.policy))  # by all processes
        if self._accelerator.is_main_process:
            save_checkpoint(
                saved.path.with_name("resumed"),
                saved.config["policy"],
                self.policy.spec,
                self.policy.horizons,
                average,
                state,
                saved.config["train"],
            )


def main(arguments: list[str]) -> None:
    demos, run_dir, steps, *rest = arguments
    config = replace(CONFIG, steps=int(steps), save_every=10, sharded="sharded" in rest)
    config = stopped(config, after=7) if "stop" in rest else config
    if "by_window" in rest:
        draw_by_window()
        config = replace(config, clip_norm=0.0)
    if "witness" in rest:
        setattr(policy.train, "TrainState", WitnessedState)  # noqa: B010
    keys = ("pose", "rgb") if "rgb" in rest else ()
    train_tiny(Path(demos), Path(run_dir), config, keys, resume="resume" in rest)


if __name__ == "__main__":
    main(sys.argv[1:])
