"""Frames that were encoded already give the same context as a whole window encoded anew."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from torch import Tensor

from data.spec import Horizons
from deploy.controllers.frame_cache import FrameCache
from deploy.controllers.rti import RTIController
from deploy.controllers.solve import to_batch
from envs.history import ObsHistory
from policy.diffusion_policy import DiffusionPolicy
from policy.encoders.vision import SmallResNet
from tests.tiny_camera import CAMERA_HORIZONS, camera_obs, camera_policy
from tests.tiny_policy import tiny_policy

CAMERAS = 2


@pytest.fixture(scope="module")
def policy() -> DiffusionPolicy:
    return camera_policy()


class Stream:
    """A history and a cache that look at the same observations."""

    def __init__(self, policy: DiffusionPolicy) -> None:
        self.policy, self.cache = policy, FrameCache(policy)
        self.history = ObsHistory(policy.spec, CAMERA_HORIZONS)
        self.source = camera_obs(policy)

    def contexts(self) -> tuple[Tensor, Tensor]:
        """From the cache, and from the whole window."""
        window = self.history.windowed(copy=False)
        batch = to_batch(window, self.policy.spec, torch.device("cpu"))
        with torch.inference_mode():
            return self.cache.encode(window, batch), self.policy.encode(batch)

    def assert_equal(self) -> None:
        cached, whole = self.contexts()
        torch.testing.assert_close(cached, whole, atol=1e-5, rtol=1e-5)


def test_an_episode_gives_the_same_contexts_for_one_frame_a_tick(policy: DiffusionPolicy) -> None:
    stream = Stream(policy)
    for tick, obs in enumerate(islice(stream.source, 20), start=1):
        stream.history.push(obs)
        stream.assert_equal()
        assert stream.cache.encoded == CAMERAS * tick  # the first one is repeated, encoded once


def test_a_repeated_frame_is_known_and_a_skipped_one_is_not_missed(policy: DiffusionPolicy) -> None:
    stream = Stream(policy)
    first, second, third, fourth = islice(stream.source, 4)
    stream.history.push(first)
    stream.assert_equal()
    stream.history.push(first)
    stream.assert_equal()
    assert stream.cache.encoded == CAMERAS
    stream.history.push(second)
    stream.history.push(third)  # two observations between two ticks
    stream.assert_equal()
    assert stream.cache.encoded == 3 * CAMERAS
    stream.history.push({**fourth, "wrist_rgb": third["wrist_rgb"]})  # one camera stands still
    stream.assert_equal()
    assert stream.cache.encoded == 3 * CAMERAS + 1


def test_reset_forgets_frames_and_the_next_episode_is_right(policy: DiffusionPolicy) -> None:
    stream = Stream(policy)
    for obs in islice(stream.source, 3):
        stream.history.push(obs)
        stream.assert_equal()
    stream.cache.reset()
    stream.history.reset()
    stream.history.push(next(stream.source))
    stream.assert_equal()
    assert stream.cache.encoded == CAMERAS


def test_the_controller_encodes_one_new_frame_a_tick(
    policy: DiffusionPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    camera = policy.encoder.encoders["wrist_rgb"]
    assert isinstance(camera, SmallResNet)
    frames = camera.frames

    def counting(x: Tensor) -> Tensor:
        encoded.append(x.shape[0] * x.shape[1])
        return frames(x)

    monkeypatch.setattr(camera, "frames", counting)
    controller, stream = RTIController(policy, cold_steps=2), Stream(policy)
    for tick, obs in enumerate(islice(stream.source, 5)):
        stream.history.push(obs)
        controller.update(stream.history.windowed(copy=False), tick / policy.spec.rate_hz)
    assert encoded == [1] * 5


def test_windows_that_do_not_overlap_are_encoded_as_before() -> None:
    assert FrameCache.helps(camera_policy())
    assert not FrameCache.helps(camera_policy(Horizons(obs=1, pred=8, window=16)))
    assert not FrameCache.helps(tiny_policy())
