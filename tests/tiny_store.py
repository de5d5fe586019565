"""Random demonstrations of a few kilobytes, with all modalities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.formats.zarr_store import DemoStore, Episode, ZarrWriter, open_zarr
from data.spec import ActionSpec, DataSpec, ObsSpec

STORE_SPEC = DataSpec(
    obs={
        "rgb": ObsSpec((4, 6, 3), "image", "1/255", 10.0),
        "pose": ObsSpec((3,), "state", "m", 10.0),
        "wrench": ObsSpec((2,), "wrench", "N", 50.0),
    },
    action=ActionSpec(("dx", "dy"), ("m", "m"), (-1.0, -1.0), (1.0, 1.0)),
    rate_hz=10.0,
    task="tiny",
)


def random_episode(
    length: int, seed: int, spec: DataSpec = STORE_SPEC, mistakes: float = 0.3
) -> Episode:
    rng = np.random.default_rng(seed)
    obs = {}
    for key, value in spec.obs.items():
        shape = (length, *spec.raw_shape(key))
        image = value.modality == "image"
        rows = rng.integers(0, 256, shape) if image else rng.normal(size=shape)
        obs[key] = rows.astype(value.dtype)
    action = rng.uniform(-1, 1, (length, spec.action.dim)).astype(np.float32)
    return Episode(obs, action, rng.random(length) >= mistakes, seed)


def write_store(
    path: Path, lengths: Sequence[int], spec: DataSpec = STORE_SPEC, seed0: int = 0
) -> DemoStore:
    with ZarrWriter(path, spec, {"command": "test"}) as writer:
        for index, length in enumerate(lengths):
            writer.append(random_episode(length, seed0 + index, spec))
    return open_zarr(path)


def assert_same_episode(got: Episode, wanted: Episode) -> None:
    assert got.seed == wanted.seed
    assert got.obs.keys() == wanted.obs.keys()
    for key, rows in wanted.obs.items():
        np.testing.assert_array_equal(got.obs[key], rows, strict=True)
    np.testing.assert_array_equal(got.action, wanted.action, strict=True)
    np.testing.assert_array_equal(got.valid, wanted.valid, strict=True)
