"""Real-time chunking with networks that ONNX Runtime runs."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from data.build import build
from data.spec import Obs
from deploy.commands.usage import CONFIGS
from deploy.controllers.rtc import RTCController
from envs.history import ObsHistory
from policy.checkpoint import load_policy
from policy.diffusion_policy import DiffusionPolicy
from policy.export import export_policy, load_for_acting
from tests.tiny_env import tiny_env
from tests.tiny_policy import TINY_HORIZONS, save_tiny_checkpoint

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.apart

DT = 0.1
Policies = tuple[DiffusionPolicy, DiffusionPolicy]


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Policies:
    """The same one in torch and exported."""
    checkpoint = save_tiny_checkpoint(tmp_path_factory.mktemp("rtc") / "last")
    backend = build(yaml.safe_load((CONFIGS / "backend/onnxruntime.yaml").read_text()))
    export_policy(checkpoint, backend)
    return load_policy(checkpoint), load_for_acting(checkpoint, backend)


@pytest.fixture(scope="module")
def obs(policies: Policies) -> Obs:
    history = ObsHistory(policies[0].spec, TINY_HORIZONS)
    history.push(tiny_env()().reset(seed=0)[0])
    return history.windowed()


@pytest.mark.parametrize("mode", ["identity", "repaint"])
def test_plans_are_those_of_eager_torch(policies: Policies, obs: Obs, mode: str) -> None:
    chunks = []
    for policy in policies:
        controller = RTCController(policy, mode=mode, num_steps=3)
        chunks.append([controller.update(obs, tick * DT, DT) for tick in range(5)][-1].actions)
    np.testing.assert_allclose(chunks[0], chunks[1], atol=1e-4)


def test_an_exported_network_cannot_be_differentiated(policies: Policies) -> None:
    with pytest.raises(ValueError, match="backend=eager") as error:
        RTCController(policies[1], mode="vjp")
    assert "\n" not in str(error.value)
