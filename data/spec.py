"""The shared vocabulary: which observations and actions exist, with shapes, units and rates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Modality = Literal["image", "wrench", "state"]
Obs = dict[str, NDArray[Any]]


class SpecError(ValueError):
    """Two specs that had to fit do not, or an array does not fit its spec."""


@dataclass(frozen=True)
class ObsSpec:
    """One observation key: the shape of one sample, its unit and its rate [Hz]."""

    shape: tuple[int, ...]
    modality: Modality
    unit: str
    rate_hz: float

    def __post_init__(self) -> None:
        if self.modality not in get_args(Modality):
            raise SpecError(f"modality {self.modality!r} is unknown; known: {get_args(Modality)}.")
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8 for images, float32 for all else."""
        return np.dtype(np.uint8 if self.modality == "image" else np.float32)


@dataclass(frozen=True)
class ActionSpec:
    """Action dimensions by name, with units, bounds and which of them are discrete (indices)."""

    names: tuple[str, ...]
    units: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    discrete: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("names", "units", "low", "high", "discrete"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not len(self.names) == len(self.units) == len(self.low) == len(self.high):
            raise SpecError("action names, units, low and high must have one entry per dimension.")

    @property
    def dim(self) -> int:
        """A, the number of action dimensions."""
        return len(self.names)

    @property
    def standstill(self) -> NDArray[np.float64]:
        """The action (A,) that moves nothing: increments are bounded evenly around it."""
        return (np.array(self.low, np.float64) + np.array(self.high, np.float64)) / 2


@dataclass(frozen=True)
class DataSpec:
    """Everything a dataset, an environment, a policy and a robot must agree on."""

    obs: Mapping[str, ObsSpec]
    action: ActionSpec
    rate_hz: float
    task: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        for key, spec in self.obs.items():
            ratio = spec.rate_hz / self.rate_hz
            if ratio > 1 and abs(ratio - round(ratio)) > 1e-6:
                raise SpecError(
                    f"observation {key!r} comes at {spec.rate_hz} Hz, the policy runs at "
                    f"{self.rate_hz} Hz; resample it to a whole multiple."
                )

    def samples_per_tick(self, key: str) -> int:
        """r: samples of `key` in one policy tick; 1 for what is sampled at the policy rate."""
        return max(1, round(self.obs[key].rate_hz / self.rate_hz))

    def is_fast(self, key: str) -> bool:
        """True where a tick holds several samples, stored as (T, r, ...)."""
        return self.samples_per_tick(key) > 1

    def raw_shape(self, key: str) -> tuple[int, ...]:
        """Shape of one tick's raw observation: (*shape) or (r, *shape)."""
        shape = self.obs[key].shape
        return (self.samples_per_tick(key), *shape) if self.is_fast(key) else shape

    def select(self, keys: Iterable[str]) -> DataSpec:
        """The same spec with only `keys`; raises SpecError for a key that is not there."""
        keys = list(keys)
        if missing := [key for key in keys if key not in self.obs]:
            raise SpecError(f"observation {missing} wanted, the data has {sorted(self.obs)}.")
        return DataSpec({k: self.obs[k] for k in keys}, self.action, self.rate_hz, self.task)

    def check_provides(self, wanted: DataSpec, who: str) -> None:
        """Raise SpecError unless this spec provides all that `wanted` (of `who`) needs."""
        for key, need in wanted.obs.items():
            have = self.obs.get(key)
            if have != need:
                raise SpecError(
                    f"{who} wants observation {key!r} as {need}, got {have}. "
                    f"Available: {sorted(self.obs)}."
                )
        if self.action != wanted.action:
            raise SpecError(f"{who} wants actions {wanted.action}, got {self.action}.")
        if self.rate_hz != wanted.rate_hz:
            raise SpecError(f"{who} wants a rate of {wanted.rate_hz} Hz, got {self.rate_hz} Hz.")

    def check_obs(self, obs: Mapping[str, NDArray[Any]]) -> None:
        """Raise SpecError where a raw observation has the wrong keys, shape, dtype or a NaN."""
        for key, spec in self.obs.items():
            if key not in obs:
                raise SpecError(f"observation {key!r} is missing; got {sorted(obs)}.")
            value, wanted = np.asarray(obs[key]), self.raw_shape(key)
            if value.shape != wanted or value.dtype != spec.dtype:
                raise SpecError(
                    f"observation {key!r} came as {value.dtype} {value.shape}, "
                    f"wanted {spec.dtype} {wanted}; check the sensor's settings."
                )
            if spec.modality != "image" and not np.isfinite(value).all():
                raise SpecError(f"observation {key!r} holds NaN or Inf; check the sensor.")

    def to_dict(self) -> dict[str, Any]:
        """Plain dict for JSON."""
        return {
            "obs": {key: asdict(spec) for key, spec in self.obs.items()},
            "action": asdict(self.action),
            "rate_hz": self.rate_hz,
            "task": self.task,
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> DataSpec:
        """Inverse of `to_dict`; raises SpecError for anything that is not a spec."""
        try:
            obs = {key: ObsSpec(**value) for key, value in raw["obs"].items()}
            return cls(obs, ActionSpec(**raw["action"]), float(raw["rate_hz"]), raw.get("task", ""))
        except (KeyError, TypeError, AttributeError) as error:
            raise SpecError(
                f"not a data spec: {error!r}; write it with DataSpec.to_dict."
            ) from error


@dataclass(frozen=True)
class Horizons:
    """Window lengths [ticks; `window`: samples of the fast modality] that make a sample."""

    obs: int = 2
    pred: int = 16
    window: int = 32

    def __post_init__(self) -> None:
        if min(self.obs, self.pred, self.window) < 1:
            raise ValueError(f"horizons must be at least 1, got {self}.")
