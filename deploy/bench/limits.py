"""What this machine can do at most, and what a computation costs at least.

A roofline (Williams et al., 2009): work of F operations that has to move B bytes takes at least
max(F / peak, B / bandwidth). Peaks are measured in the same run as what is held against them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

GEMM_SIDES = (512, 1024, 2048)
CONV_CHANNELS = (32, 64, 128)
CONV_SIDE, CONV_BATCH = 32, 16
COPIED_FLOATS = 2**26  # 256 MiB: far beyond any cache
CONVOLUTIONS = ("convolution", "convolution_backward")
SECONDS_EACH = 0.4


@dataclass(frozen=True)
class Limits:
    """Best rates seen here: operations [1/s] of matrix products and convolutions, bytes [B/s]."""

    gemm: float
    conv: float
    bandwidth: float

    def seconds(self, cost: Cost) -> float:
        """The least time that work of `cost` can take."""
        return max(cost.gemm / self.gemm + cost.conv / self.conv, cost.bytes / self.bandwidth)


@dataclass(frozen=True)
class Cost:
    """Floating point operations of matrix products and convolutions, and bytes that must move."""

    gemm: float = 0.0
    conv: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.gemm + other.gemm, self.conv + other.conv, self.bytes + other.bytes)


def measure_limits() -> Limits:
    """Best of many repetitions at torch's present number of threads."""
    gemm = max(_rate(2 * n**3, _product(n)) for n in GEMM_SIDES)
    conv = max(
        _rate(2 * 9 * c * c * CONV_SIDE**2 * CONV_BATCH, _convolution(c, layout))
        for c in CONV_CHANNELS
        for layout in (torch.contiguous_format, torch.channels_last)
    )
    source, sink = torch.ones(COPIED_FLOATS), torch.zeros(COPIED_FLOATS)
    return Limits(gemm, conv, _rate(2 * 4 * COPIED_FLOATS, lambda: sink.copy_(source)))


def count_cost(work: Callable[[], object], moved: Iterable[Tensor], times: float = 1.0) -> Cost:
    """Operations that `work` runs, and `times` the bytes of the tensors `moved`."""
    with FlopCounterMode(display=False) as counter:
        work()
    operations = {
        str(op).rpartition(".")[2]: n for op, n in counter.get_flop_counts()["Global"].items()
    }
    conv = sum(n for name, n in operations.items() if name in CONVOLUTIONS)
    size = sum(t.numel() * t.element_size() for t in moved)
    return Cost(counter.get_total_flops() - conv, conv, times * size)


def _product(side: int) -> Callable[[], object]:
    a, b, out = torch.rand(side, side), torch.rand(side, side), torch.empty(side, side)
    return lambda: torch.mm(a, b, out=out)


def _convolution(channels: int, layout: torch.memory_format) -> Callable[[], object]:
    x = torch.rand(CONV_BATCH, channels, CONV_SIDE, CONV_SIDE).to(memory_format=layout)
    weight = torch.rand(channels, channels, 3, 3).to(memory_format=layout)
    return lambda: F.conv2d(x, weight, padding=1)


@torch.inference_mode()
def _rate(amount: float, work: Callable[[], object]) -> float:
    """Amount per second of the fastest repetition: what disturbs only ever slows down."""
    work()
    best, ends = float("inf"), time.perf_counter() + SECONDS_EACH
    while (started := time.perf_counter()) < ends:
        work()
        best = min(best, time.perf_counter() - started)
    return amount / best
