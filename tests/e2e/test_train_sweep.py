"""`prise train -m`: a run for each combination, in a folder of its own, whoever launches it."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import prise
from envs.pry.env import pry_spec
from policy.checkpoint import open_checkpoint
from tests.tiny_store import write_store

ROOT = Path(__file__).parents[2]
SMALL = [
    *("encoder=force", "denoiser.width=32", "denoiser.num_layers=1"),
    *("train.steps=2", "train.batch_size=4", "train.threads=1"),
]
needs_submitit = pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None,
    reason="submitit is not installed; the extra `sweep` brings it",
)


# Asked of its parent first: without any plugin of Hydra there is none.
HAS_RAY_LAUNCHER = importlib.util.find_spec("hydra_plugins") is not None and (
    importlib.util.find_spec("hydra_plugins.hydra_ray_launcher") is not None
)
needs_ray = pytest.mark.skipif(
    not HAS_RAY_LAUNCHER,
    reason="Hydra's Ray launcher is not installed; the extra `sweep-ray` brings it",
)
ON_RAY = [
    *("hydra/launcher=ray", "hydra.launcher.ray.init.address=local"),
    *("+hydra.launcher.ray.init.num_cpus=2", "+hydra.launcher.ray.init.include_dashboard=false"),
]


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweep") / "demos.zarr"
    return write_store(path, [20, 20], pry_spec(32, ())).path


def sweep(demos: Path, out: Path, *words: str) -> None:
    arguments = ["train", "-m", *SMALL, f"dataset.path={demos}", f"out={out}", *words]
    done = subprocess.run([sys.executable, "-m", "prise", *arguments], cwd=ROOT, check=False)
    assert done.returncode == 0


def settings(run: Path) -> dict[str, object]:
    return dict(open_checkpoint(run / "last").config["train"])


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.parametrize(
    "launcher", ["basic", pytest.param("submitit_local", marks=needs_submitit)]
)
def test_each_combination_is_a_run_in_a_folder_named_after_it(
    demos: Path, tmp_path: Path, launcher: str
) -> None:
    out = tmp_path / "two words"
    sweep(demos, out, "train.seed=0,1", f"hydra/launcher={launcher}")
    assert {path.name for path in out.iterdir() if path.name[0] != "."} == {
        *("train.seed=0", "train.seed=1", "multirun.yaml")
    }
    for seed in (0, 1):
        assert settings(out / f"train.seed={seed}")["seed"] == seed
        assert settings(out / f"train.seed={seed}")["steps"] == 2


@pytest.mark.slow
@pytest.mark.e2e
def test_resume_goes_on_with_runs_that_are_there_and_begins_the_others(
    demos: Path, tmp_path: Path
) -> None:
    sweep(demos, tmp_path, "train.seed=0,1")
    first = (tmp_path / "train.seed=0" / "last" / "manifest.json").read_bytes()
    sweep(demos, tmp_path, "train.seed=range(3)", "resume=true")
    assert (tmp_path / "train.seed=0" / "last" / "manifest.json").read_bytes() == first
    assert settings(tmp_path / "train.seed=2")["seed"] == 2


@pytest.mark.slow
@pytest.mark.e2e
def test_ctrl_c_saves_the_run_at_hand_and_begins_no_other(demos: Path, tmp_path: Path) -> None:
    words = [*SMALL, f"dataset.path={demos}", f"out={tmp_path}", "train.steps=100000"]
    command = [sys.executable, "-m", "prise", "train", "-m", *words, "train.seed=0,1"]
    with subprocess.Popen(command, cwd=ROOT) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (tmp_path / "train.seed=0" / "last").exists():
            time.sleep(0.1)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    state = open_checkpoint(tmp_path / "train.seed=0" / "last").read_state()
    assert state.values["progress"]["step"] > 0
    assert not (tmp_path / "train.seed=1").exists()


@needs_ray
@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.apart
def test_runs_on_a_ray_cluster_and_one_that_fails_is_one_line(demos: Path, tmp_path: Path) -> None:
    sweep(demos, tmp_path, "train.seed=0,1", *ON_RAY)
    for seed in (0, 1):
        assert settings(tmp_path / f"train.seed={seed}")["seed"] == seed
    words = [*SMALL, f"dataset.path={demos}", f"out={tmp_path}", "train.seed=1,2", *ON_RAY]
    command = [sys.executable, "-m", "prise", "train", "-m", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "prise train: error" in done.stderr.splitlines()[-1]
    assert "train.seed=1 holds a run already" in done.stderr.splitlines()[-1]
    assert settings(tmp_path / "train.seed=2")["steps"] == 2  # the other one is not lost


@pytest.mark.skipif(HAS_RAY_LAUNCHER, reason="the launcher is there")
def test_a_launcher_that_is_not_installed_names_its_extra(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert prise.main(["train", "-m", "train.seed=0,1", "hydra/launcher=ray"]) == 2
    assert "pip install -e '.[sweep-ray]'` installs it" in capsys.readouterr().err


def test_slurm_where_there_is_none_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("srun"):
        pytest.skip("this machine has Slurm")
    assert prise.main(["train", "-m", "train.seed=0,1", "hydra/launcher=submitit_slurm"]) == 2
    assert "no `srun` on this machine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["eval", "-m", "delay=0,1"], "-m is known to `prise train` alone"),
        (["train", "-m", "train.seed=0"], "-m needs a key with several values"),
        (["train", "-m", "train.sed=0,1"], "unknown key 'train.sed', did you mean train.seed?"),
        (["train", "-m", "encoder=vision,visoin"], "group encoder has no option 'visoin'"),
        (["train", "-m", "train.seed=0,x"], "train.seed must be a whole number, got 'x'"),
        (["train", "-m", "out=a,b"], "out cannot be swept"),
        (["train", "-m", "train.lr=interval(0,1)"], "write the values as train.lr=a,b"),
        (["train", "-m", "train.seed=0,1", "hydra/launcher=nobody"], "hydra/launcher/nobody"),
    ],
)
def test_what_is_no_sweep_is_one_line_before_anything_runs(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PRISE_HOME", str(tmp_path / "home"))
    assert prise.main(words) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert said in err
    assert not (tmp_path / "home").exists()
