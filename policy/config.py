"""What a training run is told: one flat dataclass, and the learning rate that follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass

PRECISIONS = ("no", "bf16")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run; components are configured apart, in the policy's own dict.

    Attributes:
        steps: Optimizer steps of the whole run.
        batch_size: Windows a step, over all processes together, so that the number of GPUs does
            not change what is learnt.
        lr: Peak learning rate: linear warm-up over `warmup_steps`, then half a cosine to 0.
        weight_decay: AdamW's, on matrices only; biases, norms and gains are left alone.
        clip_norm: Largest gradient norm; 0 turns clipping off.
        ema_decay: Of the averaged weights, which are the ones that are evaluated and deployed.
        mixed_precision: "no" or "bf16" (autocast; weights stay float32).
        num_workers: Processes that load data; 0 loads in the training process.
        log_every, save_every: Steps between rows in metrics.jsonl, and between saves of `last/`.
        eval_every: Steps between evaluations; 0 never evaluates.
        threads: torch threads; 0 leaves torch's choice.
        end_ticks, end_weight: The last so many windows of each demonstration come so many times an
            epoch; 0 and 1 treat all windows alike.
        sharded: Several processes each hold a part of weights, average and optimizer (FSDP2), not
            all of them (DDP).
        cache_mb: Memory for decoded demonstrations [MiB]; a bigger dataset is shuffled in blocks.
    """

    steps: int = 20_000
    batch_size: int = 128
    lr: float = 3e-4
    warmup_steps: int = 500
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    mixed_precision: str = "no"
    num_workers: int = 0
    log_every: int = 50
    eval_every: int = 0
    save_every: int = 1000
    seed: int = 0
    threads: int = 0
    cache_mb: int = 512
    end_ticks: int = 0
    end_weight: int = 1
    sharded: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(float(beta) for beta in self.betas))
        for name in ("steps", "batch_size", "log_every", "save_every", "cache_mb", "end_weight"):
            _check(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in (
            "warmup_steps",
            "weight_decay",
            "clip_norm",
            "num_workers",
            "eval_every",
            "end_ticks",
        ):
            _check(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        _check(self.threads >= 0, "threads", self.threads, "0 or more")
        _check(self.lr > 0, "lr", self.lr, "above 0")
        _check(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "in [0, 1)")
        in_range = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        _check(in_range, "betas", self.betas, "two numbers in [0, 1)")
        known = self.mixed_precision in PRECISIONS
        _check(known, "mixed_precision", self.mixed_precision, f"one of {PRECISIONS}")

    def lr_at(self, step: int) -> float:
        """Learning rate of the step that follows `step` finished ones."""
        warm_up = min(1.0, (step + 1) / (self.warmup_steps + 1))
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.lr * warm_up * 0.5 * (1.0 + math.cos(math.pi * min(1.0, max(0.0, progress))))


def _check(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise ValueError(f"train.{name} must be {wanted}, got {value!r}.")
