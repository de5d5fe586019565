"""An exported encoder that gets one new frame a tick gives what it gives for the whole window."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from data.build import build
from data.spec import Horizons, Obs
from deploy.commands.usage import CONFIGS
from deploy.controllers.exported_frames import ExportedFrames, remembered_frames
from deploy.controllers.rti import RTIController
from deploy.controllers.solve import to_batch
from envs.history import ObsHistory
from policy.diffusion_policy import DiffusionPolicy
from policy.export import EXPORTED, export_policy, load_for_acting
from tests.test_refinement import allocations
from tests.tiny_camera import CAMERA_HORIZONS, camera_obs, save_camera_checkpoint
from tests.tiny_policy import save_tiny_checkpoint

pytestmark = pytest.mark.apart

THREE = Horizons(obs=3, pred=8, window=16)


def exported(checkpoint: Path, engine: str) -> DiffusionPolicy:
    if find_spec(engine) is None:
        pytest.skip(f"needs the extra with {engine}")
    backend = build(yaml.safe_load((CONFIGS / f"backend/{engine}.yaml").read_text()))
    about = export_policy(checkpoint, backend)
    assert about.frames_difference is None or about.frames_difference < 1e-4
    return load_for_acting(checkpoint, backend)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_camera_checkpoint(tmp_path_factory.mktemp("frames") / "last")


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def policy(request: pytest.FixtureRequest, checkpoint: Path) -> DiffusionPolicy:
    return exported(checkpoint, request.param)


class Stream:
    """A history and a memory that look at the same observations."""

    def __init__(self, policy: DiffusionPolicy, horizons: Horizons = CAMERA_HORIZONS) -> None:
        self.policy, self.frames = policy, ExportedFrames(policy)
        self.history = ObsHistory(policy.spec, horizons)
        self.source = camera_obs(policy)

    def push(self, *observed: Obs) -> None:
        for obs in observed:
            self.history.push(obs)

    def encoded(self) -> int:
        """Instants encoded for the window of now, after a comparison with all of it at once."""
        before = self.frames.encoded
        window = self.history.windowed(copy=False)
        batch = to_batch(window, self.policy.spec, torch.device("cpu"))
        with torch.inference_mode():
            torch.testing.assert_close(
                self.frames.encode(window, batch), self.policy.encode(batch), atol=1e-5, rtol=1e-5
            )
        return self.frames.encoded - before


def windows(policy: DiffusionPolicy, count: int) -> Iterator[Obs]:
    history = ObsHistory(policy.spec, CAMERA_HORIZONS)
    for obs in islice(camera_obs(policy), count):
        history.push(obs)
        yield history.windowed()


def test_one_new_frame_a_tick_is_encoded_and_missed_ones_are_caught_up(
    policy: DiffusionPolicy,
) -> None:
    stream = Stream(policy)
    first, second, third, fourth, fifth = islice(stream.source, 5)
    stream.push(first)
    assert stream.encoded() == 2  # nothing is known
    stream.push(second)
    assert stream.encoded() == 1
    stream.push(third, fourth)  # two between two ticks
    assert stream.encoded() == 2
    stream.push(fourth)
    assert stream.encoded() == 1
    stream.push({**fifth, "wrist_rgb": fourth["wrist_rgb"]})  # one camera stands still
    assert stream.encoded() == 1
    stream.push({**first, "scene_rgb": fifth["scene_rgb"]})
    assert stream.encoded() == 1


def test_reset_forgets_frames(policy: DiffusionPolicy) -> None:
    stream = Stream(policy)
    stream.push(next(stream.source))
    stream.encoded()
    stream.frames.reset()
    assert stream.encoded() == 2


def test_longer_windows_shift_too(tmp_path: Path) -> None:
    policy = exported(save_camera_checkpoint(tmp_path / "last", THREE), "onnxruntime")
    stream = Stream(policy, THREE)
    encoded = []
    for obs in islice(stream.source, 5):
        stream.push(obs)
        encoded.append(stream.encoded())
    assert encoded == [3, 1, 1, 1, 1]
    stream.push(*islice(stream.source, 2))
    assert stream.encoded() == 2


@pytest.mark.parametrize("nfe", [1, 2])
def test_chunks_are_those_of_eager_torch(
    checkpoint: Path, policy: DiffusionPolicy, nfe: int
) -> None:
    chunks = []
    for acting in (load_for_acting(checkpoint), policy):
        controller = RTIController(acting, cold_steps=2, nfe=nfe)
        ticks = enumerate(windows(policy, 10))
        chunks.append([controller.update(obs, t / policy.spec.rate_hz).actions for t, obs in ticks])
    np.testing.assert_allclose(chunks[0], chunks[1], atol=1e-5)


def test_ticks_do_not_allocate_tensors(policy: DiffusionPolicy) -> None:
    controller, observed = RTIController(policy, cold_steps=2), list(windows(policy, 10))
    for number, obs in enumerate(observed[:5]):
        controller.update(obs, number / policy.spec.rate_hz)

    def tick() -> None:
        for number, obs in enumerate(observed[5:], start=5):
            controller.update(obs, number / policy.spec.rate_hz)

    assert allocations(tick) == 0


def test_windows_that_do_not_overlap_have_no_graph_for_it(tmp_path: Path) -> None:
    path = save_tiny_checkpoint(tmp_path / "last")
    policy = exported(path, "onnxruntime")
    assert remembered_frames(policy) is None
    assert not (path / EXPORTED / "onnxruntime" / "frames.onnx").exists()
