"""Steers a solve towards actions that are already known: the plan that is being executed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Generator, Tensor

from policy.samplers.base import noise_like
from policy.schedule import Schedule

Estimate = Callable[[Tensor], Tensor]  # x (B, Tp, A) to the x0 that the network sees in it

# Weight of an action at c, which falls from 1 to 0 over the overlap.
DECAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda c: c,
    "exp": lambda c: c * torch.expm1(c) / math.expm1(1),
    "zeros": torch.zeros_like,
    "ones": torch.ones_like,
}


def overlap_weights(horizon: int, frozen: int, end: int, decay: str) -> Tensor:
    """How much each action (horizon,) is bound to its target; Black et al. (2025), eq. 5.

    index    0 .. frozen - 1    frozen .. end - 1         end .. horizon - 1
    weight   1                  decay(c), c from 1 to 0   0
    """
    if decay not in DECAYS:
        raise ValueError(f"schedule {decay!r} of weights is unknown; known: {sorted(DECAYS)}.")
    if not 0 <= frozen <= end <= horizon:
        raise ValueError(f"0 <= frozen {frozen} <= end {end} <= horizon {horizon} is wanted.")
    weights = torch.zeros(horizon)
    weights[:frozen] = 1.0
    weights[frozen:end] = DECAYS[decay](torch.linspace(1, 0, end - frozen + 2)[1:-1])
    return weights


class Guidance(Protocol):
    """One evaluation of the network that also looks at what is known."""

    needs_gradients: ClassVar[bool]

    def __call__(
        self,
        estimate: Estimate,
        x: Tensor,
        known: Known,
        level: float,
        schedule: Schedule,
        generator: Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The iterate at `level` and the estimate of x0 to go on with, both (B, Tp, A)."""
        ...


@dataclass(frozen=True, eq=False)
class Known:
    """What a solve is steered to, and how."""

    guidance: Guidance
    target: Tensor  # (B, Tp, A) in network units
    weights: Tensor  # (Tp, 1) in [0, 1]


@dataclass(frozen=True)
class VectorJacobian:
    """Pseudo-inverse guidance, Song et al. (2023), as in Black et al. (2025), algorithm 1.

    x0' = x0 + sigma min(max_weight, sigma / (alpha r^2)) J^T W (Y - x0), J = dx0 / dx,
    r^2 = sigma^2 / (sigma^2 + alpha^2), the variance of x0 given x for standard normal actions.
    For x0 = x + (1 - t) v of a flow this is their eq. 2; for a noise prediction it takes
    min(...) / sigma times alpha J^T W (Y - x0) from eps. It costs a backward pass an evaluation.
    """

    max_weight: float = 5.0
    needs_gradients: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check(self.max_weight)

    def __call__(
        self,
        estimate: Estimate,
        x: Tensor,
        known: Known,
        level: float,
        schedule: Schedule,
        generator: Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The iterate itself, and x0'."""
        alpha, sigma = schedule.alpha(level), schedule.sigma(level)
        exact = (sigma**2 + alpha**2) / max(alpha * sigma, 1e-12)  # sigma / (alpha r^2)
        # Inference tensors cannot be saved for a backward pass, copies of them can.
        with torch.inference_mode(False), torch.enable_grad():
            start = x.detach().clone().requires_grad_()
            x0 = estimate(start)
            error = known.weights * (known.target - x0.detach())
            (pulled,) = torch.autograd.grad(x0, start, error)
        return x, x0.detach() + sigma * min(self.max_weight, exact) * pulled


@dataclass(frozen=True)
class Identity:
    """The same with J = I, and never beyond the target; no backward pass.

    x0' = x0 + min(1, max_weight sigma) W (Y - x0). What is known of the first actions reaches the
    others only through the network's next evaluation.
    """

    max_weight: float = 5.0
    needs_gradients: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check(self.max_weight)

    def __call__(
        self,
        estimate: Estimate,
        x: Tensor,
        known: Known,
        level: float,
        schedule: Schedule,
        generator: Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The iterate itself, and x0'."""
        x0 = estimate(x)
        gain = min(1.0, self.max_weight * schedule.sigma(level))
        return x, x0 + gain * known.weights * (known.target - x0)


@dataclass(frozen=True)
class Repaint:
    """Known actions are overwritten at each level, Lugmayr et al. (2022), without resampling.

    x_i = alpha Y_i + sigma z where the weight is at least 1 - level: all of the frozen prefix all
    the way, the others until they are released (as in Differential Diffusion, Levin and Fried
    2023). Averaging x instead would leave too little noise in it.
    """

    needs_gradients: ClassVar[bool] = False

    def __call__(
        self,
        estimate: Estimate,
        x: Tensor,
        known: Known,
        level: float,
        schedule: Schedule,
        generator: Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The overwritten iterate and its estimate, in which the frozen prefix is exact."""
        target, weights = known.target, known.weights
        noisy = schedule.alpha(level) * target
        noisy = noisy + schedule.sigma(level) * noise_like(target, generator)
        x = torch.where((weights > 0) & (weights >= 1 - level), noisy, x)
        return x, torch.where(weights >= 1, target, estimate(x))


MODES = ("identity", "repaint", "vjp")


def named_guidance(mode: str, max_weight: float = 5.0) -> Guidance:
    """The guidance called `mode`; `max_weight` is for all but `repaint`, which has no weight."""
    if mode == "vjp":
        return VectorJacobian(max_weight)
    if mode == "identity":
        return Identity(max_weight)
    if mode == "repaint":
        return Repaint()
    raise ValueError(f"mode {mode!r} is unknown; known: {list(MODES)}.")


def _check(max_weight: float) -> None:
    if not max_weight > 0:
        raise ValueError(f"max_weight must be above 0, got {max_weight}.")
