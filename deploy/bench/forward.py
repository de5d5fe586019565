"""The forward pass of a training step in parts: augment, encode, denoise, and what is between."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
from torch import nn

from policy.diffusion_policy import DiffusionPolicy
from policy.encoders.vision import camera_encoders

PARTS = ("augment", "encode", "denoise", "other")


def forward_ms(policy: DiffusionPolicy, batch: Mapping[str, Any], rounds: int) -> dict[str, float]:
    """Median milliseconds of each of `PARTS` and of "all" in `policy.loss`, gradients recorded.

    Hooks tell parts apart: cropping is what a camera's encoder does before its trunk, "other"
    is normalising, drawing noise and the loss itself.
    """
    with ExitStack() as hooks:
        clock = _Clock(hooks)
        clock.watch("encode", policy.encoder)
        clock.watch("denoise", policy.denoiser)
        for camera in camera_encoders(policy.encoder).values():
            clock.watch("augment", camera, until=camera.trunk)
        policy.train()
        taken = [clock.measure(lambda: policy.loss(batch)) for _ in range(rounds + 1)][1:]
    return {part: 1000 * float(np.median([t[part] for t in taken])) for part in (*PARTS, "all")}


class _Clock:
    """Seconds from the beginning of modules to their end, or to the beginning of others."""

    def __init__(self, hooks: ExitStack) -> None:
        self._hooks = hooks
        self._spent = dict.fromkeys(PARTS, 0.0)

    def watch(self, part: str, module: nn.Module, until: nn.Module | None = None) -> None:
        """Book the time in `module` to `part`."""
        began = 0.0

        def begin(*_: Any) -> None:
            nonlocal began
            began = time.perf_counter()

        def end(*_: Any) -> None:
            self._spent[part] += time.perf_counter() - began

        first = module.register_forward_pre_hook(begin)
        last = (
            module.register_forward_hook(end)
            if until is None
            else until.register_forward_pre_hook(end)
        )
        for handle in (first, last):
            self._hooks.callback(handle.remove)

    def measure(self, work: Callable[[], object]) -> dict[str, float]:
        """Seconds of each part while `work` ran."""
        self._spent = dict.fromkeys(PARTS, 0.0)
        started = time.perf_counter()
        work()
        whole = time.perf_counter() - started
        spent = self._spent
        spent["encode"] -= spent["augment"]
        return spent | {"other": whole - sum(spent.values()), "all": whole}
