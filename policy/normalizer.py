"""Physical units to network units and back, per observation key and for actions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.spec import DataSpec, ObsSpec

ACTION = "action"
STATE_FLOOR = 1e-3  # [unit of the state] a smaller range is noise and must not fill [-1, 1]
ACTION_FLOOR = 1e-4  # [unit of the action]
WRENCH_SCALE = (0.5, 0.5, 0.5, 0.025, 0.025, 0.025)  # [N, N m] where linear turns logarithmic


class Range(Protocol):
    """Statistics of one key, as far as they are needed here."""

    @property
    def min(self) -> NDArray[Any]:
        """Smallest value per dimension."""
        ...

    @property
    def max(self) -> NDArray[Any]:
        """Largest value per dimension."""
        ...


class Limits(nn.Module):
    """Affine map of [min, max] to [-1, 1] per dimension.

    A range below `floor` is widened to it, so that a constant dimension maps to 0 and 0 maps back
    to the constant. Buffers are NaN until fitted.
    """

    center: Tensor
    half_range: Tensor

    def __init__(self, shape: tuple[int, ...], floor: float) -> None:
        super().__init__()
        self.floor = floor
        self.register_buffer("center", torch.full(shape, torch.nan))
        self.register_buffer("half_range", torch.full(shape, torch.nan))

    def fit(self, key: str, stats: Range) -> None:
        """Take the limits from `stats`; raises ValueError where they do not fit."""
        low = torch.as_tensor(stats.min, dtype=torch.float64)
        high = torch.as_tensor(stats.max, dtype=torch.float64)
        if low.shape != self.center.shape or not (high >= low).all():
            raise ValueError(
                f"Statistics of {key!r} have shape {tuple(low.shape)}, min {low.tolist()} and "
                f"max {high.tolist()}; wanted shape {tuple(self.center.shape)} and min <= max. "
                "Compute them anew from the dataset."
            )
        self.center.copy_((low + high) / 2)
        self.half_range.copy_((high - low).clamp(min=self.floor) / 2)

    def normalize(self, x: Tensor) -> Tensor:
        """Physical units to network units."""
        return (x - self.center) / self.half_range

    def unnormalize(self, x: Tensor) -> Tensor:
        """Network units to physical units."""
        return x * self.half_range + self.center


class Companded(Limits):
    """mu-law of the distance from zero (Reed et al., 2022, Gato, there for states and actions).

        y = sign(u) log(1 + mu |u|) / log(1 + mu),   u = x / max |x|

    Increments of a robot span two orders of magnitude, and those that decide are the small ones:
    between lifting by 0.25 mm and standing still lies a twelfth of the range of an approach, and
    the square of that is what a loss sees. Dimensions whose range does not hold zero stay linear.
    """

    def __init__(self, shape: tuple[int, ...], floor: float, mu: float) -> None:
        super().__init__(shape, floor)
        if not mu > 0:
            raise ValueError(f"companding must be above 0, got {mu}.")
        self.mu = mu

    def fit(self, key: str, stats: Range) -> None:
        """Take the limits from `stats`; where they hold zero, zero stays zero."""
        super().fit(key, stats)
        holds_zero = self.center.abs() <= self.half_range
        reach = self.center.abs() + self.half_range
        self.half_range.copy_(torch.where(holds_zero, reach, self.half_range))
        self.center.masked_fill_(holds_zero, 0.0)

    def normalize(self, x: Tensor) -> Tensor:
        """Physical units to network units."""
        u = super().normalize(x)
        y = torch.copysign(torch.log1p(self.mu * u.abs()) / math.log1p(self.mu), u)
        return torch.where(self.center == 0, y, u)

    def unnormalize(self, x: Tensor) -> Tensor:
        """Network units to physical units."""
        u = torch.copysign(torch.expm1(x.abs() * math.log1p(self.mu)) / self.mu, x)
        return super().unnormalize(torch.where(self.center == 0, u, x))


class SignedLog(nn.Module):
    """y = sign(x) log(1 + |x| / s) / 2 with a fixed scale s.

    Contact decisions happen at 1 N, impacts at 50 N: the logarithm keeps both readable. The scale
    is physical and not fitted, so a force means the same in every dataset.
    """

    scale: Tensor

    def __init__(self, scale: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale), persistent=False)

    def normalize(self, x: Tensor) -> Tensor:
        """Physical units to network units."""
        return torch.copysign(torch.log1p((x / self.scale).abs()) / 2, x)

    def unnormalize(self, x: Tensor) -> Tensor:
        """Network units to physical units."""
        return torch.copysign(torch.expm1(2 * x.abs()) * self.scale, x)


class PixelRange(nn.Module):
    """uint8 pixels to [-1, 1]."""

    def normalize(self, x: Tensor) -> Tensor:
        """Pixel values to network units."""
        return x / 127.5 - 1

    def unnormalize(self, x: Tensor) -> Tensor:
        """Network units to pixel values, as float."""
        return (x + 1) * 127.5


class AsGiven(nn.Module):
    """No change: for what is normalised elsewhere."""

    def normalize(self, x: Tensor) -> Tensor:
        """The same."""
        return x

    def unnormalize(self, x: Tensor) -> Tensor:
        """The same."""
        return x


Transform = Limits | SignedLog | PixelRange | AsGiven


class Normalizer(nn.Module):
    """One map per key of a `DataSpec`: states and actions by limits, wrenches by a signed log.

    With `companding` above 0 it is the mu of a mu-law for actions, which must then be increments.

    Shapes follow from the spec, numbers live in buffers: a new `Normalizer(spec)` is ready for
    `load_state_dict`.
    """

    def __init__(self, spec: DataSpec, companding: float = 0.0) -> None:
        super().__init__()
        if ACTION in spec.obs:
            raise ValueError(f"Observation key {ACTION!r} is reserved; rename it in the dataset.")
        self.transforms = nn.ModuleDict({key: _transform(key, s) for key, s in spec.obs.items()})
        self.transforms[ACTION] = (
            Companded((spec.action.dim,), ACTION_FLOOR, companding)
            if companding
            else Limits((spec.action.dim,), ACTION_FLOOR)
        )

    @classmethod
    def fit(cls, stats: Mapping[str, Range], spec: DataSpec, companding: float = 0.0) -> Normalizer:
        """Limits from `stats` for the states of `spec` and for "action"."""
        normalizer = cls(spec, companding)
        for key, transform in normalizer.transforms.items():
            if isinstance(transform, Limits):
                if key not in stats:
                    raise ValueError(
                        f"Statistics for {key!r} are missing, got {sorted(stats)}. "
                        "Compute them with data.stats.dataset_stats."
                    )
                transform.fit(key, stats[key])
        return normalizer

    def check_fitted(self) -> None:
        """Raise ValueError while limits are unknown."""
        for key, transform in self.transforms.items():
            if isinstance(transform, Limits) and transform.half_range.isnan().any():
                raise ValueError(
                    f"The normalizer has no limits for {key!r} yet; "
                    "use Normalizer.fit(stats, spec) or load a checkpoint."
                )

    def leave(self, key: str) -> None:
        """From now on `key` is normalised by whatever looks at it."""
        self.transforms[key] = AsGiven()

    def normalize(self, key: str, x: Tensor) -> Tensor:
        """`x` (..., *shape) of `key` in network units."""
        return self._of(key).normalize(x)

    def unnormalize(self, key: str, x: Tensor) -> Tensor:
        """Inverse of `normalize`."""
        return self._of(key).unnormalize(x)

    def _of(self, key: str) -> Transform:
        if key not in self.transforms:
            raise ValueError(f"Nothing known about {key!r}; known: {sorted(self.transforms)}.")
        transform = self.transforms[key]
        assert isinstance(transform, Limits | SignedLog | PixelRange | AsGiven)
        return transform


def _transform(key: str, spec: ObsSpec) -> Transform:
    if spec.modality == "image":
        return PixelRange()
    if spec.modality == "wrench":
        if spec.shape != (len(WRENCH_SCALE),):
            raise ValueError(
                f"Wrench {key!r} has shape {spec.shape}, wanted (fx, fy, fz, tx, ty, tz). "
                "Declare anything else as modality 'state'."
            )
        return SignedLog(WRENCH_SCALE)
    return Limits(spec.shape, STATE_FLOOR)
