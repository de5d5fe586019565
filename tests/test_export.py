"""Exported networks compute what torch does, and never belong to other weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import pytest
import torch
import yaml

import prise
from data.build import build
from data.formats.zarr_store import open_zarr
from deploy.agent import AgentFactory
from deploy.commands.usage import CONFIGS
from envs.evaluate import run_episode
from policy.backends.draws import recorded_draws
from policy.checkpoint import CheckpointError, load_policy, save_checkpoint
from policy.export import ABOUT, EXPORTED, export_policy, load_for_acting
from tests.tiny_env import TINY_SPEC, tiny_env
from tests.tiny_policy import TINY_CONFIG, TINY_HORIZONS, save_tiny_checkpoint, tiny_policy
from tests.tiny_store import write_store

pytestmark = pytest.mark.apart

# Engines that compute what torch does, and the module without which each is skipped.
ENGINES = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            find_spec(module) is None, reason=f"needs the extra with {module}"
        ),
    )
    for name, module in (("onnxruntime", "onnxruntime"), ("openvino", "openvino"))
]
RTI = {"_target_": "deploy.controllers.rti.RTIController", "cold_steps": 3}


def config_of(name: str) -> dict[str, str]:
    config: dict[str, str] = yaml.safe_load((CONFIGS / f"backend/{name}.yaml").read_text())
    return config


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("export") / "last")


@pytest.fixture(scope="module")
def export(saved: Path) -> Callable[[str], Path]:
    """The checkpoint, with an export for the engine of this name."""

    @cache
    def once(name: str) -> Path:
        about = export_policy(saved, build(config_of(name)))
        assert about.encoder_difference < 1e-4
        assert about.denoiser_difference < 1e-4
        assert about.refine_difference < 1e-4
        return saved

    return once


def demos(path: Path) -> Path:
    return write_store(path / "demos.zarr", [20, 20], TINY_SPEC).path


@pytest.mark.parametrize("name", ENGINES)
def test_an_episode_is_the_same_as_with_torch(export: Callable[[str], Path], name: str) -> None:
    agents = [AgentFactory(export(name), RTI, backend=config_of(n))() for n in ("eager", name)]
    eager, other = (run_episode(tiny_env()(), agent, 5) for agent in agents)
    assert other.outcome == eager.outcome
    assert other.metrics == pytest.approx(eager.metrics, abs=1e-5)


@pytest.mark.parametrize("name", ENGINES)
def test_results_stay_as_they_were_after_the_next_call(
    export: Callable[[str], Path], name: str
) -> None:
    policy = load_for_acting(export(name), build(config_of(name)))
    shape = (1, policy.horizons.pred, policy.spec.action.dim)
    encoder = load_policy(export(name)).encoder
    context = torch.zeros(1, encoder.num_tokens, encoder.dim)
    level = torch.full((1, 1), 0.5)
    first = policy.denoiser(torch.zeros(shape), level, context)
    kept = first.clone()
    policy.denoiser(torch.ones(shape), level, context)
    torch.testing.assert_close(first, kept)


def test_batches_and_levels_per_action_are_refused(export: Callable[[str], Path]) -> None:
    policy = load_for_acting(export("onnxruntime"), build(config_of("onnxruntime")))
    x = torch.zeros(1, policy.horizons.pred, policy.spec.action.dim)
    context = torch.zeros(1, 1, 1)
    with pytest.raises(ValueError, match="one level for the chunk"):
        policy.denoiser(x, torch.zeros(x.shape[:2]), context)
    with pytest.raises(ValueError, match="batch of 2"):
        policy.denoiser(x.repeat(2, 1, 1), torch.zeros(1, 1), context)


@pytest.mark.parametrize("name", ENGINES)
def test_inputs_may_come_from_anywhere_in_memory(export: Callable[[str], Path], name: str) -> None:
    graph = load_for_acting(export(name), build(config_of(name))).denoiser
    plain = load_policy(export(name))
    shape = (1, plain.horizons.pred, plain.spec.action.dim)
    level, context = torch.full((1, 1), 0.5), torch.ones(1, plain.encoder.num_tokens, 16)
    kept = torch.randn(shape)
    for x in (kept, kept.transpose(1, 2).contiguous().transpose(1, 2), torch.randn(shape), kept):
        torch.testing.assert_close(
            graph(x, level, context), plain.denoiser(x, level, context), atol=1e-5, rtol=1e-5
        )
        kept += 1.0  # in place: the next call must see it
    with pytest.raises(ValueError, match="'context' of shape"):
        graph(kept, level, torch.ones(1, 1, 3))


@pytest.mark.parametrize("name", ["epsilon", "v"])
def test_other_parameterizations_are_exported_too(tmp_path: Path, name: str) -> None:
    target = {"epsilon": "Epsilon", "v": "V"}[name]
    config = {
        **TINY_CONFIG,
        "parameterization": {"_target_": f"policy.parameterization.{target}"},
        "companding": 20.0,
    }
    policy = tiny_policy()
    path = tmp_path / "last"
    save_checkpoint(path, config, policy.spec, TINY_HORIZONS, policy.state_dict())
    assert export_policy(path, build(config_of("onnxruntime"))).refine_difference < 1e-3


def test_int8_is_calibrated_on_demonstrations_and_says_how_far_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, backend = save_tiny_checkpoint(tmp_path / "last"), build(config_of("onnxruntime_int8"))
    assert prise.main(["export", f"checkpoint={path}", "backend=onnxruntime_int8"]) == 2
    assert "add dataset.path=PATH" in capsys.readouterr().err
    backend.tolerance = 10.0  # random weights give outputs far beyond [-1, 1]
    about = export_policy(path, backend, store=open_zarr(demos(tmp_path)))
    assert 1e-5 < about.refine_difference < backend.tolerance  # it is not the float graph
    agent = AgentFactory(path, RTI, backend=config_of("onnxruntime_int8"))()
    assert run_episode(tiny_env()(), agent, 5).ticks > 1


def test_calibration_levels_lie_denser_near_the_data(tmp_path: Path) -> None:
    draws = recorded_draws(tiny_policy(), open_zarr(demos(tmp_path)), 400)
    levels = torch.cat([inputs[1] for inputs in draws.denoiser])
    assert 0.4 < float((levels <= 0.25).float().mean()) < 0.6  # half of them in a quarter
    assert levels.max() > 0.9


@pytest.mark.slow
@pytest.mark.skipif(which("c++") is None, reason="needs a C++ compiler")
def test_ahead_of_time_compiled_networks_compute_what_torch_does(tmp_path: Path) -> None:
    path, config = save_tiny_checkpoint(tmp_path / "last"), config_of("aot_inductor")
    about = export_policy(path, build(config))
    assert max(about.encoder_difference, about.refine_difference) < 1e-4
    agents = [AgentFactory(path, RTI, backend=c)() for c in (config_of("eager"), config)]
    eager, other = (run_episode(tiny_env()(), agent, 5) for agent in agents)
    assert other.metrics == pytest.approx(eager.metrics, abs=1e-5)


def test_an_export_of_another_version_is_refused(tmp_path: Path) -> None:
    path, backend = save_tiny_checkpoint(tmp_path / "last"), build(config_of("onnxruntime"))
    export_policy(path, backend)
    about = path / EXPORTED / "onnxruntime" / ABOUT
    written = json.loads(about.read_text())
    del written["refine_difference"]
    about.write_text(json.dumps(written))
    with pytest.raises(CheckpointError, match="another version of Prise; write it with"):
        load_for_acting(path, backend)


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
