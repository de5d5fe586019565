"""The noise level of each action of a chunk in training: acting can then give each its own.

    constant   [l l l l l l l l]                 one level for the chunk
    prefix     [0 0 0 | l l l l l]               clean where actions are already on their way
    rising     [0 0 | .2 .2 | .6 .6 | 1 1]       the nearer in time, the cleaner

A level of 0 is a clean action: the network sees it and the loss leaves it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor


class LevelPlan(Protocol):
    """Levels of a batch of chunks; what a controller asks a policy that it wants to act with."""

    name: str

    def check(self, pred_horizon: int) -> None:
        """Raise ValueError where chunks of so many actions cannot have such levels."""
        ...

    def draw(
        self, level: Tensor, pred_horizon: int, grid: int, generator: Generator | None
    ) -> Tensor:
        """Levels (B, Tp), or (B, 1) for one a chunk, from drawn `level` (B, 1) on a grid."""
        ...


@dataclass(frozen=True)
class ConstantLevels:
    """One level for the whole chunk."""

    name = "constant"

    def check(self, pred_horizon: int) -> None:
        """Any chunk will do."""

    def draw(
        self, level: Tensor, pred_horizon: int, grid: int, generator: Generator | None
    ) -> Tensor:
        """The drawn level."""
        return level


@dataclass(frozen=True)
class PrefixLevels:
    """The first d actions are clean, d uniform in 0 .. `max_delay` [ticks] for each chunk.

    Training-time real-time chunking (Black et al. 2025, arXiv 2512.05964): while a chunk is
    computed the actions before it are executed; it has to go on from them.
    """

    max_delay: int = 4

    name = "prefix"

    def check(self, pred_horizon: int) -> None:
        """At least one action must be left to learn."""
        _check_delay(self.max_delay, pred_horizon - 1, f"pred_horizon {pred_horizon}")

    def draw(
        self, level: Tensor, pred_horizon: int, grid: int, generator: Generator | None
    ) -> Tensor:
        """The drawn level behind a clean prefix."""
        delay = _integers(self.max_delay, level, generator)
        return torch.where(torch.arange(pred_horizon, device=level.device) < delay, 0.0, level)


@dataclass(frozen=True)
class RisingLevels:
    """Levels that rise with the action index, in blocks of `block` actions (`rising_ramp`).

    Streaming Diffusion Policy (Høeg et al. 2024, arXiv 2406.04806): 80 % of the chunks have a ramp
    at a random place between two of its resting positions, 20 % one level. Here a part of the
    ramps, `wide`, lies anywhere up to noise alone, which is where a buffer starts and where it is
    after a pause; and the first blocks that cover a delay up to `max_delay` [ticks] may be clean.
    """

    block: int = 2
    max_delay: int = 0
    constant: float = 0.2
    wide: float = 0.25

    name = "rising"

    def __post_init__(self) -> None:
        shares = {"constant": self.constant, "wide": self.wide}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"levels.{name} is a share in [0, 1], got {share}.")

    @property
    def max_frozen(self) -> int:
        """Blocks that `max_delay` covers."""
        return -(-self.max_delay // self.block)

    def check(self, pred_horizon: int) -> None:
        """Blocks must divide the chunk, and one must be left behind the delay."""
        if self.block < 1 or pred_horizon % self.block:
            raise ValueError(
                f"levels.block {self.block} must divide pred_horizon {pred_horizon}: set another "
                "levels.block or horizons.pred."
            )
        where = f"pred_horizon {pred_horizon} in blocks of {self.block}"
        _check_delay(self.max_delay, pred_horizon - self.block, where)

    def draw(
        self, level: Tensor, pred_horizon: int, grid: int, generator: Generator | None
    ) -> Tensor:
        """A ramp, or the drawn level."""
        blocks = pred_horizon // self.block
        frozen = _integers(self.max_frozen, level, generator)
        stage = 1 - _uniform(level, generator)  # (0, 1]
        is_wide = _uniform(level, generator) < self.wide
        stage = torch.where(is_wide, stage * (blocks - frozen), stage)
        index = torch.arange(blocks, device=level.device)
        ramp = ((index - frozen + stage) / (blocks - frozen)).clamp(0, 1)
        # What is not frozen must not be rounded to clean: the loss would leave it out.
        ticks = torch.where(index >= frozen, (ramp * grid).round().clamp(min=1), 0.0)
        ramps = (ticks / grid).to(level).repeat_interleave(self.block, 1)
        return torch.where(_uniform(level, generator) < self.constant, level, ramps)


def rising_ramp(stage: float, frozen: int, blocks: int, grid: int) -> tuple[float, ...]:
    """Level of each block: clip((b - frozen + stage) / (blocks - frozen), 0, 1), on the grid.

        stage 1   .25 .50 .75 1.0      before the evaluations of a tick
        stage 0   .00 .25 .50 .75      after them: the first block can be executed
        stage 4   1.0 1.0 1.0 1.0      noise alone

    Frozen blocks are clean whatever the stage.
    """
    rest = blocks - frozen
    levels = (min(max((b - frozen + stage) / rest, 0.0), 1.0) for b in range(blocks))
    return tuple(
        round(level * grid) / grid if b >= frozen else 0.0 for b, level in enumerate(levels)
    )


def _check_delay(max_delay: int, most: int, where: str) -> None:
    if not 0 <= max_delay <= most:
        raise ValueError(
            f"levels.max_delay must be in 0..{most} ticks with {where}, got {max_delay}."
        )


def _integers(most: int, level: Tensor, generator: Generator | None) -> Tensor:
    return torch.randint(most + 1, level.shape, generator=generator, device=level.device)


def _uniform(level: Tensor, generator: Generator | None) -> Tensor:
    return torch.rand(level.shape, generator=generator, device=level.device, dtype=torch.float64)
