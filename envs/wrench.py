"""A wrist force-torque sensor: from MuJoCo's interaction force to what a driver would publish.

    1 kHz raw -> gravity compensation -> tool centre point -> + bias, drift, noise, quantisation
              -> clip -> causal Butterworth low-pass with state -> every 10th sample -> tare
              -> 100 Hz wrench

MuJoCo's force and torque sensors report child on parent in the site's frame, so the force of the
world on the tool is `-(f + R^T m g)` (XML reference, "force" sensor). The filter runs on the stream
before it is thinned, as in a real driver; windows are cut afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt

Array = NDArray[np.float64]
GRAVITY = 9.81  # [m/s^2]


@dataclass(frozen=True)
class WrenchNoise:
    """Sensor errors; standard deviations at the raw rate, forces in N and torques in N m."""

    force_std: float = 0.15
    torque_std: float = 0.005
    force_drift: float = 0.02  # random walk per sqrt(s)
    torque_drift: float = 0.0008
    force_step: float = 0.01  # quantisation
    torque_step: float = 0.0002
    force_limit: float = 80.0
    torque_limit: float = 5.0
    scale: float = 1.0  # multiplies noise and drift

    def per_axis(self, force: float, torque: float) -> Array:
        """The six values of one force and one torque constant."""
        return np.array([force] * 3 + [torque] * 3)


@dataclass(frozen=True)
class DistalLoad:
    """What hangs behind the sensor: mass [kg] and centre of mass in the sensor frame [m]."""

    mass: float
    com: tuple[float, float, float]


class WrenchSensor:
    """Stateful pipeline; feed it the stream in order, take 100 Hz samples out."""

    def __init__(
        self,
        load: DistalLoad,
        tip_in_sensor: tuple[float, float, float],
        rng: np.random.Generator,
        bias: tuple[float, ...] = (0.0,) * 6,
        noise: WrenchNoise | None = None,
        cutoff_hz: float = 35.0,
        raw_hz: int = 1000,
        out_hz: int = 100,
    ) -> None:
        self._load, self._rng = load, rng
        self._noise = noise or WrenchNoise()
        self._com, self._tip = np.asarray(load.com), np.asarray(tip_in_sensor)
        self._bias = np.asarray(bias, dtype=float)
        self._drift = np.zeros(6)
        self._raw_hz, self._thin = raw_hz, raw_hz // out_hz
        self._sos = butter(2, cutoff_hz, fs=raw_hz, output="sos")
        self._filter_state = np.zeros((self._sos.shape[0], 2, 6))
        self._phase = 0
        self._tare = np.zeros(6)

    def external(self, raw: Array, rotation: Array) -> Array:
        """True wrench of the world on the tool at the tip: (n, 6) from raw (n, 6)."""
        gravity = -GRAVITY * rotation[:, 2, :]  # (n, 3) gravity in the sensor frame, R^T g
        weight = self._load.mass * gravity
        force = -(raw[:, :3] + weight)
        torque = -(raw[:, 3:] + np.cross(self._com, weight))
        return np.concatenate([force, torque - np.cross(self._tip, force)], axis=1)

    def process(self, external: Array) -> Array:
        """Samples at the output rate, (m, 6), for true external wrenches (n, 6) at the raw rate."""
        n, noise = len(external), self._noise
        std = noise.scale * noise.per_axis(noise.force_std, noise.torque_std)
        walk = noise.scale * noise.per_axis(noise.force_drift, noise.torque_drift)
        steps = self._rng.normal(0.0, 1.0, (n, 6)) * walk / np.sqrt(self._raw_hz)
        drift = self._drift + np.cumsum(steps, axis=0)
        measured = external + self._bias + drift + self._rng.normal(0.0, 1.0, (n, 6)) * std
        step = noise.per_axis(noise.force_step, noise.torque_step)
        limit = noise.per_axis(noise.force_limit, noise.torque_limit)
        measured = np.clip(np.round(measured / step) * step, -limit, limit)
        filtered, self._filter_state = sosfilt(self._sos, measured, axis=0, zi=self._filter_state)
        first = (-self._phase - 1) % self._thin
        self._drift, self._phase = drift[-1], (self._phase + n) % self._thin
        samples: Array = filtered[first :: self._thin] - self._tare
        return samples

    def tare(self, samples: Array) -> None:
        """Take the mean of `samples` (n, 6), measured without contact, as the new zero."""
        self._tare = self._tare + samples.mean(axis=0)


def as_float32(samples: Array) -> NDArray[Any]:
    """The dtype observations are stored in."""
    return samples.astype(np.float32)
