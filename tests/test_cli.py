"""Whatever is wrong with a command's input: one line, exit status 2, and nothing left behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import prise
from data.build import build
from data.spec import DataSpec, Horizons
from deploy.commands.compose import compose
from deploy.commands.train import policy_config
from envs.pry.env import pry_spec
from policy.checkpoint import save_checkpoint
from policy.diffusion_policy import DiffusionPolicy
from policy.normalizer import Normalizer
from tests.tiny_policy import Bounds
from tests.tiny_store import write_store

ROOT = Path(__file__).resolve().parents[1]
HORIZONS = Horizons(obs=2, pred=16, window=32)
SMALL = ["denoiser.width=32", "denoiser.num_layers=1"]


def make_checkpoint(path: Path, spec: DataSpec, *arguments: str) -> Path:
    """An untrained policy for `spec`, saved."""
    config = policy_config(compose("train", [*SMALL, *arguments]))
    policy = build(config, spec=spec, horizons=HORIZONS)
    assert isinstance(policy, DiffusionPolicy)
    stats = {key: Bounds(-np.ones(s.shape), np.ones(s.shape)) for key, s in policy.spec.obs.items()}
    stats["action"] = Bounds(np.array(spec.action.low), np.array(spec.action.high))
    policy.set_normalizer(Normalizer.fit(stats, policy.spec))
    save_checkpoint(path, config, policy.spec, HORIZONS, policy.state_dict())
    return path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PRISE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PRISE_DEBUG", raising=False)
    return tmp_path / "home"


@pytest.fixture(scope="session")
def force_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "force"
    return make_checkpoint(path, pry_spec(32, ()), "encoder=force")


@pytest.fixture(scope="session")
def vision_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "vision"
    return make_checkpoint(path, pry_spec(32, ("wrist", "scene")), "encoder=vision")


class Told:
    """Runs a command that must fail, and returns the one line it said."""

    def __init__(self, capsys: pytest.CaptureFixture[str], home: Path) -> None:
        self._capsys, self._home = capsys, home

    def __call__(self, *arguments: str) -> str:
        status = prise.main(arguments)
        out, err = self._capsys.readouterr()
        assert status == 2, err
        assert out == ""
        lines = err.splitlines()
        assert len(lines) == 1, err
        assert not self._home.exists()
        return lines[0]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str], home: Path) -> Told:
    return Told(capsys, home)


def test_unknown_verb_lists_the_verbs(told: Told) -> None:
    assert told("fly") == (
        "prise: error: unknown verb 'fly'; "
        "known: demo, collect, train, eval, bench, deploy, calibrate, export, predictor, inspect, "
        "report."
    )


@pytest.mark.parametrize("verb", prise.VERBS)
def test_unknown_key(told: Told, verb: str) -> None:
    assert told(verb, "episdes=3").startswith(f"prise {verb}: error: unknown key 'episdes'")


def test_unknown_option_of_a_group(told: Told) -> None:
    assert "group encoder has no option 'visoin', did you mean vision?" in told(
        "train", "encoder=visoin"
    )


def test_unknown_argument_of_a_component(told: Told, tmp_path: Path) -> None:
    store = write_store(tmp_path / "demos.zarr", [20], pry_spec(32, ()))
    line = told(
        "train", f"dataset.path={store.path}", "encoder=force", "+denoiser.depth=3", "resume=false"
    )
    assert "does not know ['depth']" in line


def test_setting_out_of_range(told: Told) -> None:
    assert told("train", "train.batch_size=0") == (
        "prise train: error: train.batch_size must be at least 1, got 0."
    )


@pytest.mark.parametrize("argument", ["nothing=", "episodes", "=3", "a b=1", "episodes=[1"])
def test_what_is_no_override(told: Told, argument: str) -> None:
    assert told("collect", argument).startswith("prise collect: error: ")


def test_missing_dataset(told: Told, tmp_path: Path) -> None:
    assert str(tmp_path / "none.zarr") in told("train", f"dataset.path={tmp_path}/none.zarr")


@pytest.mark.parametrize("verb", ["train", "inspect"])
def test_truncated_dataset(told: Told, tmp_path: Path, verb: str) -> None:
    store = write_store(tmp_path / "demos.zarr", [20, 20], pry_spec(32, ()))
    for chunk in (store.path / "data" / "pose").rglob("*"):
        if chunk.is_file() and chunk.name != "zarr.json":
            chunk.write_bytes(chunk.read_bytes()[:-5])
    run = tmp_path / "run"
    train = [f"dataset.path={store.path}", "encoder=force", "train.batch_size=2", f"out={run}"]
    line = told(verb, *(train if verb == "train" else [str(store.path)]))
    assert "pose" in line
    assert not (run / "last").exists()


def test_dataset_that_does_not_fit_the_policy(told: Told, tmp_path: Path) -> None:
    store = write_store(tmp_path / "demos.zarr", [20], pry_spec(32, ()))
    line = told("train", f"dataset.path={store.path}", "encoder=vision_force")
    assert "'wrist_rgb'" in line
    assert "the data has ['pose', 'wrench']" in line


def test_missing_checkpoint(told: Told, tmp_path: Path) -> None:
    line = told("eval", f"checkpoint={tmp_path}/none")
    assert line == (
        f"prise eval: error: no checkpoint folder at {tmp_path}/none; train one or check the path."
    )


@pytest.mark.parametrize("verb", ["eval", "deploy", "inspect"])
def test_checkpoint_with_a_changed_file(
    told: Told, tmp_path: Path, force_checkpoint: Path, verb: str
) -> None:
    path = Path(shutil.copytree(force_checkpoint, tmp_path / "changed"))
    config = path / "config.yaml"
    config.write_text(config.read_text().replace("32", "64"))
    key = "path" if verb == "inspect" else "checkpoint"
    extra = ["robot=sim"] if verb == "deploy" else []
    assert "was changed or damaged" in told(verb, f"{key}={path}", *extra)


@pytest.mark.parametrize("name", ["weights.safetensors", "spec.json", "manifest.json"])
def test_checkpoint_without_a_file(
    told: Told, tmp_path: Path, force_checkpoint: Path, name: str
) -> None:
    path = Path(shutil.copytree(force_checkpoint, tmp_path / "partial"))
    (path / name).unlink()
    assert name in told("eval", f"checkpoint={path}")


def test_camera_of_the_wrong_size(told: Told, vision_checkpoint: Path) -> None:
    line = told("eval", f"checkpoint={vision_checkpoint}", "env.kwargs.image_size=48")
    assert "(32, 32, 3)" in line
    assert "(48, 48, 3)" in line


def test_missing_camera(told: Told, vision_checkpoint: Path) -> None:
    line = told("eval", f"checkpoint={vision_checkpoint}", "env.kwargs.cameras=[wrist]")
    assert "scene_rgb" in line


def test_unknown_split_of_the_task(told: Told, force_checkpoint: Path) -> None:
    assert "split 'moon' is unknown" in told(
        "eval", f"checkpoint={force_checkpoint}", "env.kwargs.split=moon"
    )


def test_sensor_that_gives_nan(
    capsys: pytest.CaptureFixture[str], force_checkpoint: Path, home: Path
) -> None:
    env = "env.id=tests.broken_pry:NaNPry-v0"
    status = prise.main(["eval", f"checkpoint={force_checkpoint}", env, "episodes=1", "workers=1"])
    told = capsys.readouterr().err.splitlines()[-1]  # above it is the progress bar
    assert status == 2
    assert "seed 1000000" in told
    assert "observation 'pose' holds NaN or Inf; check the sensor." in told
    assert not home.exists()


def test_setting_that_the_controller_refuses(told: Told, force_checkpoint: Path) -> None:
    line = told("eval", f"checkpoint={force_checkpoint}", "controller.start_level=2")
    assert "in (0, 1]" in line


@pytest.mark.parametrize("verb", ["eval", "deploy"])
def test_no_episodes(told: Told, force_checkpoint: Path, verb: str) -> None:
    extra = ["robot=sim"] if verb == "deploy" else []
    line = told(verb, f"checkpoint={force_checkpoint}", "episodes=0", *extra)
    assert "episodes must be at least 1, got 0." in line


def test_path_that_is_neither_dataset_nor_checkpoint(told: Told, tmp_path: Path) -> None:
    assert "neither a dataset" in told("inspect", str(tmp_path))


def test_path_with_spaces_and_quotes_is_taken_as_it_is(told: Told, tmp_path: Path) -> None:
    assert f"no folder {tmp_path}/it's = odd;" in told("inspect", f"{tmp_path}/it's = odd")


def test_extra_that_is_not_installed(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "envs.ray_workers", raising=False)
    assert "`.venv/bin/pip install -e '.[ray]'` installs it." in told("collect", "executor=ray")


def test_unknown_bench(told: Told) -> None:
    assert told("bench", "tea") == (
        "prise bench: error: bench 'tea' is unknown; "
        "known: acting, deadline, gates, engine, grid, overhead, tick, train, scale."
    )


def test_bad_input_met_by_a_worker_is_bad_input() -> None:
    failed = RuntimeError("seed 3: the worker failed")
    assert not prise._is_bad_input(failed)
    failed.__cause__ = ValueError("action 'dx' is NaN")
    assert prise._is_bad_input(failed)


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRISE_DEBUG", "1")
    with pytest.raises(ValueError, match="unknown key"):
        prise.main(["train", "stepz=3"])


def test_controller_settings_can_be_overridden_by_library_users(force_checkpoint: Path) -> None:
    policy = prise.load_policy(force_checkpoint)
    controller = prise.make_controller(policy, "cold_ddim", exec_horizon=4)
    assert getattr(controller, "exec_horizon", None) == 4
    with pytest.raises(ValueError, match="controller 'pid' is unknown; known: adaptive, cold_ddim"):
        prise.make_controller(policy, "pid")


@pytest.mark.slow
@pytest.mark.e2e
def test_collect_inspect_train_eval_and_deploy_work_together(tmp_path: Path, home: Path) -> None:
    def command(*arguments: str) -> str:
        line = [sys.executable, "-m", "prise", *arguments]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "2 episodes" in command(
        "collect", "episodes=2", "workers=1", "env.kwargs.cameras=[]", "env.kwargs.image_size=1"
    )
    assert "2 episodes" in command("inspect", str(home / "data" / "pry.zarr"))
    few = ["train.steps=2", "train.batch_size=4", "train.eval_every=2", "evaluation.episodes=1"]
    assert "done at step 2" in command("train", "encoder=force", "name=short", *SMALL, *few)
    checkpoint = f"checkpoint={home}/runs/short/last"
    assert "success" in command("eval", checkpoint, "episodes=2", "workers=1", "delay=1")
    again = ["controller=cold_ddim", "episodes=1", f"out={home}/cold", f"against={home}/eval"]
    assert "success_difference" in command("eval", checkpoint, *again, "delay=1")
    assert "success" in command("deploy", checkpoint, "robot=sim", "episodes=1")
    rows = json.loads((home / "eval" / "results.json").read_text())["rows"]
    assert {row["name"] for row in rows} == {"success", "outcome", "nfe_per_tick", "tick_ms"}
    assert {row["obs"] for row in rows} == {"force"}
