"""Exported networks compute what torch does, and never belong to other weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

import prise
from data.build import build
from deploy.agent import AgentFactory
from deploy.commands.usage import CONFIGS
from envs.evaluate import run_episode
from policy.checkpoint import CheckpointError, load_policy
from policy.export import ABOUT, EXPORTED, export_policy, load_for_acting
from tests.tiny_env import tiny_env
from tests.tiny_policy import save_tiny_checkpoint

BACKENDS = sorted(path.stem for path in (CONFIGS / "backend").glob("*.yaml"))
ENGINES = [name for name in BACKENDS if name != "eager"]
RTI = {"_target_": "deploy.controllers.rti.RTIController", "cold_steps": 3}


def config_of(name: str) -> dict[str, str]:
    config: dict[str, str] = yaml.safe_load((CONFIGS / f"backend/{name}.yaml").read_text())
    return config


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = save_tiny_checkpoint(tmp_path_factory.mktemp("export") / "last")
    for name in ENGINES:
        about = export_policy(path, build(config_of(name)))
        assert about.encoder_difference < 1e-4
        assert about.denoiser_difference < 1e-4
    return path


@pytest.mark.parametrize("name", ENGINES)
def test_an_episode_is_the_same_as_with_torch(exported: Path, name: str) -> None:
    agents = [AgentFactory(exported, RTI, backend=config_of(n))() for n in ("eager", name)]
    eager, other = (run_episode(tiny_env()(), agent, 5) for agent in agents)
    assert other.outcome == eager.outcome
    assert other.metrics == pytest.approx(eager.metrics, abs=1e-5)


@pytest.mark.parametrize("name", ENGINES)
def test_results_stay_as_they_were_after_the_next_call(exported: Path, name: str) -> None:
    policy = load_for_acting(exported, build(config_of(name)))
    shape = (1, policy.horizons.pred, policy.spec.action.dim)
    encoder = load_policy(exported).encoder
    context = torch.zeros(1, encoder.num_tokens, encoder.dim)
    level = torch.full((1, 1), 0.5)
    first = policy.denoiser(torch.zeros(shape), level, context)
    kept = first.clone()
    policy.denoiser(torch.ones(shape), level, context)
    torch.testing.assert_close(first, kept)


def test_batches_and_levels_per_action_are_refused(exported: Path) -> None:
    policy = load_for_acting(exported, build(config_of(ENGINES[0])))
    x = torch.zeros(1, policy.horizons.pred, policy.spec.action.dim)
    context = torch.zeros(1, 1, 1)
    with pytest.raises(ValueError, match="one level for the chunk"):
        policy.denoiser(x, torch.zeros(x.shape[:2]), context)
    with pytest.raises(ValueError, match="batch of 2"):
        policy.denoiser(x.repeat(2, 1, 1), torch.zeros(1, 1), context)


def test_an_export_of_other_weights_is_refused(tmp_path: Path) -> None:
    path = save_tiny_checkpoint(tmp_path / "last")
    backend = build(config_of("onnxruntime"))
    with pytest.raises(CheckpointError, match="no export for onnxruntime; write it with"):
        load_for_acting(path, backend)
    export_policy(path, backend)
    about = path / EXPORTED / "onnxruntime" / ABOUT
    written = json.loads(about.read_text())
    about.write_text(json.dumps(written | {"weights": "0" * 64}))
    with pytest.raises(CheckpointError, match="other weights"):
        load_for_acting(path, backend)


def test_a_damaged_export_is_refused(tmp_path: Path) -> None:
    path = save_tiny_checkpoint(tmp_path / "last")
    backend = build(config_of("onnxruntime"))
    export_policy(path, backend)
    graph = path / EXPORTED / "onnxruntime" / "denoiser.onnx"
    graph.write_bytes(graph.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"denoiser\.onnx is missing or was changed"):
        load_for_acting(path, backend)


def test_saving_the_checkpoint_again_removes_its_exports(tmp_path: Path) -> None:
    path = save_tiny_checkpoint(tmp_path / "last")
    export_policy(path, build(config_of("onnxruntime")))
    assert (path / EXPORTED).is_dir()
    save_tiny_checkpoint(path)
    assert not (path / EXPORTED).exists()


def test_command_writes_an_export_and_says_how_far_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_tiny_checkpoint(tmp_path / "last")
    assert prise.main(["export", f"checkpoint={path}", "backend=onnxruntime"]) == 0
    assert "largest difference to eager torch" in capsys.readouterr().out
    assert (path / EXPORTED / "onnxruntime" / "encoder.onnx").is_file()
    assert prise.main(["export", f"checkpoint={path}", "backend=eager"]) == 2
    assert "needs no export" in capsys.readouterr().err
