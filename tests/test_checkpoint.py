from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from data.build import build
from data.spec import DataSpec
from policy.checkpoint import (
    CONFIG,
    MANIFEST,
    SPEC,
    WEIGHTS,
    CheckpointError,
    TrainingState,
    checkpoint_exists,
    load_policy,
    open_checkpoint,
    save_checkpoint,
)
from policy.diffusion_policy import DiffusionPolicy
from tests import tiny_training
from tests.tiny_training import HORIZONS, policy_config

DATA_SPEC = tiny_training.SPEC.select(["pose", "goal"])
STATE = TrainingState({"model.x": torch.arange(3)}, {"step": 3})


def make_policy(seed: int = 0) -> DiffusionPolicy:
    torch.manual_seed(seed)
    policy = build(policy_config(), spec=DATA_SPEC, horizons=HORIZONS)
    assert isinstance(policy, DiffusionPolicy)
    for name, buffer in policy.named_buffers():
        if name.startswith("normalizer"):
            buffer.fill_(1.0 + seed)
    return policy


def save(path: Path, seed: int = 0, state: TrainingState | None = STATE) -> DiffusionPolicy:
    policy = make_policy(seed)
    save_checkpoint(path, policy_config(), DATA_SPEC, HORIZONS, policy.state_dict(), state)
    return policy


def assert_same_weights(policy: DiffusionPolicy, wanted: DiffusionPolicy) -> None:
    got, expected = policy.state_dict(), wanted.state_dict()
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(got[key], value), key


def rewrite(folder: Path, name: str, content: bytes) -> None:
    """Change a file and its digest, as somebody with intent would."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = hashlib.sha256(content).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_loaded_policy_has_the_saved_weights_frozen_and_in_eval_mode(tmp_path: Path) -> None:
    saved = save(tmp_path / "c")
    policy = load_policy(tmp_path / "c")
    assert_same_weights(policy, saved)
    assert not policy.training
    assert not any(p.requires_grad for p in policy.parameters())
    assert policy.spec == DATA_SPEC
    assert policy.horizons == HORIZONS


def test_training_state_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    save(tmp_path / "c")
    state = open_checkpoint(tmp_path / "c").read_state()
    assert torch.equal(state.tensors["model.x"], STATE.tensors["model.x"])
    assert state.values == STATE.values


def test_config_is_plain_yaml_with_policy_horizons_and_train(tmp_path: Path) -> None:
    policy = make_policy()
    weights = policy.state_dict()
    train = {"lr": 1e-5, "betas": (0.9, 0.99)}
    save_checkpoint(tmp_path / "c", policy_config(), DATA_SPEC, HORIZONS, weights, train=train)
    config = yaml.safe_load((tmp_path / "c" / CONFIG).read_text())
    assert config["policy"] == policy_config()
    assert config["horizons"] == {"obs": 2, "pred": 4, "window": 4}
    assert config["train"] == {"lr": 1e-5, "betas": [0.9, 0.99]}


def test_manifest_lists_every_other_file(tmp_path: Path) -> None:
    save(tmp_path / "c")
    files = {str(p.relative_to(tmp_path / "c")) for p in (tmp_path / "c").rglob("*") if p.is_file()}
    assert set(open_checkpoint(tmp_path / "c").digests) == files - {MANIFEST}


def test_missing_folder_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint folder at .*nowhere"):
        load_policy(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [CONFIG, SPEC, WEIGHTS])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    save(tmp_path / "c")
    (tmp_path / "c" / name).unlink()
    with pytest.raises(CheckpointError, match=f"lacks {name}"):
        load_policy(tmp_path / "c")


def test_folder_without_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    with pytest.raises(CheckpointError, match=r"has no manifest\.json"):
        load_policy(tmp_path / "c")


@pytest.mark.parametrize("name", [CONFIG, SPEC, WEIGHTS])
def test_changed_file_is_named(tmp_path: Path, name: str) -> None:
    save(tmp_path / "c")
    content = bytearray((tmp_path / "c" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "c" / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name} was changed or damaged"):
        load_policy(tmp_path / "c")


def test_policy_loads_without_training_state(tmp_path: Path) -> None:
    save(tmp_path / "c")
    shutil.rmtree(tmp_path / "c" / "state")
    load_policy(tmp_path / "c")
    with pytest.raises(CheckpointError, match=r"lacks state/tensors\.safetensors"):
        open_checkpoint(tmp_path / "c").read_state()


def test_resuming_from_weights_alone_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "c", state=None)
    with pytest.raises(CheckpointError, match="holds weights only"):
        open_checkpoint(tmp_path / "c").read_state()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"schema_version": 99, "files": {}}', "schema version 99, this code reads 1"),
        ("{", "manifest.json is damaged"),
        ("[]", "manifest.json is damaged"),
    ],
)
def test_manifest_of_another_kind_is_refused(tmp_path: Path, content: str, message: str) -> None:
    save(tmp_path / "c")
    (tmp_path / "c" / MANIFEST).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        load_policy(tmp_path / "c")


def test_target_outside_the_project_is_refused_even_with_a_right_digest(tmp_path: Path) -> None:
    save(tmp_path / "c")
    config = yaml.safe_load((tmp_path / "c" / CONFIG).read_text())
    config["policy"]["_target_"] = "os.system"
    rewrite(tmp_path / "c", CONFIG, yaml.safe_dump(config).encode())
    with pytest.raises(CheckpointError, match=r"os\.system"):
        load_policy(tmp_path / "c")


def test_python_objects_in_yaml_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "c")
    rewrite(tmp_path / "c", CONFIG, b"!!python/object/apply:os.getcwd []")
    with pytest.raises(CheckpointError, match="no policy checkpoint"):
        load_policy(tmp_path / "c")


def test_weights_of_another_policy_are_refused(tmp_path: Path) -> None:
    weights = make_policy().state_dict()
    weights.pop(next(iter(weights)))
    save_checkpoint(tmp_path / "c", policy_config(), DATA_SPEC, HORIZONS, weights)
    with pytest.raises(CheckpointError, match=r"do not fit its policy: .*Missing key"):
        load_policy(tmp_path / "c")


@pytest.mark.parametrize(
    "robot",
    [
        replace(DATA_SPEC, rate_hz=20.0),
        DATA_SPEC.select(["pose"]),
        replace(DATA_SPEC, action=replace(DATA_SPEC.action, low=(-2.0, -2.0))),
    ],
)
def test_robot_that_does_not_provide_what_the_policy_needs_is_refused(
    tmp_path: Path, robot: DataSpec
) -> None:
    save(tmp_path / "c")
    with pytest.raises(CheckpointError, match=r"checkpoint .*c wants"):
        load_policy(tmp_path / "c", robot_spec=robot)


def test_robot_with_more_than_needed_is_accepted(tmp_path: Path) -> None:
    saved = save(tmp_path / "c")
    assert_same_weights(load_policy(tmp_path / "c", robot_spec=tiny_training.SPEC), saved)


def test_saving_again_replaces_the_checkpoint_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    save(tmp_path / "c", seed=0)
    second = save(tmp_path / "c", seed=1, state=None)
    assert_same_weights(load_policy(tmp_path / "c"), second)
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    assert not (tmp_path / "c" / "state").exists()


def test_folder_that_is_no_checkpoint_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").touch()
    with pytest.raises(CheckpointError, match="is not overwritten"):
        save(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter1.tex").exists()


def kill_while_writing(folder: Path) -> None:
    (folder / ".c.new").mkdir()
    (folder / ".c.new" / WEIGHTS).write_bytes(b"half")


def kill_between_the_renames(folder: Path) -> None:
    shutil.copytree(folder / "c", folder / ".c.new")
    (folder / "c").rename(folder / ".c.old")


def kill_while_deleting(folder: Path) -> None:
    shutil.copytree(folder / "c", folder / ".c.old")
    (folder / ".c.old" / MANIFEST).unlink()


@pytest.mark.parametrize(
    "kill", [kill_while_writing, kill_between_the_renames, kill_while_deleting]
)
def test_kill_at_any_point_of_a_save_leaves_a_checkpoint_to_load_and_to_replace(
    tmp_path: Path, kill: Any
) -> None:
    saved = save(tmp_path / "c", seed=0)
    kill(tmp_path)
    assert checkpoint_exists(tmp_path / "c")
    assert_same_weights(load_policy(tmp_path / "c"), saved)
    second = save(tmp_path / "c", seed=1)
    assert_same_weights(load_policy(tmp_path / "c"), second)
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_checkpoint_in_the_working_directory_has_its_spare_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "c")
    kill_between_the_renames(tmp_path)
    monkeypatch.chdir(tmp_path)
    load_policy("c")
