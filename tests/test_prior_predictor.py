"""The learned warm start: files, what it learns from, and what it does to a tick."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import prise
from data.formats.zarr_store import DemoStore
from data.spec import Obs
from deploy.controllers.rti import RTIController
from deploy.controllers.rti_learned import RTILearnedController
from envs.history import ObsHistory
from policy.checkpoint import WEIGHTS, CheckpointError, load_policy, save_checkpoint
from policy.distill_prior import DistillConfig, consecutive_plans, distill_prior
from policy.prior_predictor import (
    ABOUT,
    PREDICTOR,
    PriorPredictor,
    load_predictor,
    save_predictor,
)
from policy.samplers.base import noise_like
from tests.tiny_env import TINY_SPEC, tiny_env
from tests.tiny_policy import TINY_CONFIG, TINY_HORIZONS, save_tiny_checkpoint, tiny_policy
from tests.tiny_store import write_store

DT = 0.1


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_tiny_checkpoint(tmp_path / "last")


@pytest.fixture
def trained(checkpoint: Path) -> Path:
    """A checkpoint with a predictor, of random weights."""
    predictor = PriorPredictor(load_policy(checkpoint), hidden=8, num_layers=1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in predictor.parameters():
            weight.normal_(0.0, 0.1, generator=generator)
    save_predictor(checkpoint, predictor, {"episodes": 3})
    return checkpoint


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> DemoStore:
    return write_store(tmp_path_factory.mktemp("store") / "demos.zarr", [12] * 6, TINY_SPEC)


@pytest.fixture(scope="module")
def obs() -> Obs:
    history = ObsHistory(tiny_policy().spec, TINY_HORIZONS)
    history.push(tiny_env()().reset(seed=0)[0])
    return history.windowed()


def plans(controller: RTIController, obs: Obs) -> list[np.ndarray]:
    controller.reset(1)
    return [controller.update(obs, tick * DT).actions for tick in range(3)]


def test_an_untrained_predictor_leaves_the_prior_and_the_tick_as_they_are(
    checkpoint: Path, obs: Obs
) -> None:
    policy = load_policy(checkpoint)
    save_predictor(checkpoint, PriorPredictor(policy), {})
    learned, plain = RTILearnedController(policy, 0.4), RTIController(policy, 0.4)
    np.testing.assert_array_equal(plans(learned, obs), plans(plain, obs))


def test_the_tick_starts_from_what_was_predicted(trained: Path, obs: Obs) -> None:
    policy = load_policy(trained)
    learned = RTILearnedController(policy, start_level=0.1, warm_start="as_is")
    plain = RTIController(policy, start_level=0.1, warm_start="as_is")
    one, two = plans(learned, obs), plans(plain, obs)
    np.testing.assert_array_equal(one[0], two[0])  # the cold plan has no prior
    assert not np.array_equal(one[1], two[1])
    assert learned.last_nfe == 1
    prior = torch.rand(1, TINY_HORIZONS.pred, policy.spec.action.dim)
    context = torch.rand(1, 1, 16)
    predictor = load_predictor(policy)
    state = policy.begin(context, num_steps=1, start_level=0.1, prior=prior, predictor=predictor)
    plain_state = policy.begin(context, num_steps=1, start_level=0.1, prior=prior)
    wanted = predictor(context, plain_state.x0).clamp(-policy.clip, policy.clip)
    torch.testing.assert_close(state.x0, wanted)


def test_what_was_saved_is_loaded(trained: Path) -> None:
    predictor = load_predictor(load_policy(trained))
    saved = load_file(trained / PREDICTOR / WEIGHTS)
    for key, value in predictor.state_dict().items():
        assert torch.equal(value, saved[key])
    assert not any(p.requires_grad for p in predictor.parameters())
    assert json.loads((trained / PREDICTOR / ABOUT).read_text())["training"] == {"episodes": 3}
    assert not list(trained.glob(".*"))


def test_without_a_predictor_the_error_says_how_to_get_one(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="has no predictor; train one with `prise predictor"):
        RTILearnedController(load_policy(checkpoint))
    with pytest.raises(CheckpointError, match="not loaded from one"):
        RTILearnedController(tiny_policy())


def test_evaluation_without_a_predictor_is_one_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "eval"
    words = ["eval", f"checkpoint={checkpoint}", "controller=rti_learned", f"out={out}"]
    assert prise.main(words) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1
    assert f"{checkpoint} has no predictor; train one with `prise predictor" in err[0]
    assert not out.exists()


def test_other_weights_damage_and_other_versions_are_refused(trained: Path) -> None:
    place = trained / PREDICTOR
    about = json.loads((place / ABOUT).read_text())
    changes = (
        ({"policy": "0" * 64}, "other weights"),
        ({"schema_version": 2}, "schema version 2"),
        ({"shape": {"hidden": 9, "num_layers": 1}}, "does not fit"),
        ({"weights": "0" * 64}, "missing or was changed"),
    )
    for change, message in changes:
        (place / ABOUT).write_text(json.dumps(about | change))
        with pytest.raises(CheckpointError, match=message):
            load_predictor(load_policy(trained))
    for text in ("{", json.dumps(about | {"shape": {"width": 8}}), "[]"):
        (place / ABOUT).write_text(text)
        with pytest.raises(CheckpointError, match="damaged"):
            load_predictor(load_policy(trained))


def test_saving_the_checkpoint_again_removes_it(trained: Path) -> None:
    policy = tiny_policy(seed=1)
    save_checkpoint(trained, TINY_CONFIG, policy.spec, TINY_HORIZONS, policy.state_dict())
    assert not (trained / PREDICTOR).exists()


def test_noise_moves_with_the_plan(obs: Obs) -> None:
    policy, length = tiny_policy(), 5
    windows = {
        k: torch.from_numpy(obs[k]).expand(length, *obs[k].shape).clone() for k in policy.spec.obs
    }
    windows["goal"] += torch.arange(length)[:, None, None] / length
    pairs = consecutive_plans(policy, windows, 3, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    chunk = (policy.horizons.pred, policy.spec.action.dim)
    noise_like(torch.empty(length, *chunk), generator)  # what `begin` draws
    noise = noise_like(torch.empty(length + chunk[0] - 1, chunk[1]), generator)
    context = policy.encode(windows)
    for tick in range(1, length):
        state = policy.begin(context[tick : tick + 1], num_steps=3)
        object.__setattr__(state, "x", noise[tick : tick + chunk[0]][None])
        while not state.done:
            state = policy.step(state)
        torch.testing.assert_close(pairs.target[tick - 1], state.x0[0], atol=1e-5, rtol=1e-5)
    assert torch.equal(pairs.prior[1:, :-1], pairs.target[:-1, 1:])
    assert torch.equal(pairs.prior[1:, -1], pairs.target[:-1, -1])


def test_training_comes_nearer_to_the_policys_plans_and_repeats(store: DemoStore) -> None:
    policy = tiny_policy()
    config = DistillConfig(
        episodes=6, teacher_steps=2, steps=60, batch_size=32, hidden=32, num_layers=1
    )
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again = (distill_prior(policy, store, config, progress=False) for _ in range(2))
    assert first.predicted_error < 0.9 * first.shifted_error
    assert first.pairs == 5 * 11
    for one, two in zip(first.predictor.parameters(), again.predictor.parameters(), strict=True):
        assert torch.equal(one, two)
    assert torch.equal(before, torch.get_rng_state())


def test_the_command_trains_and_evaluation_finds_it(
    checkpoint: Path, store: DemoStore, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["episodes=3", "steps=2", "teacher_steps=1", "batch_size=4", "hidden=8"]
    status = prise.main(
        [
            "predictor",
            f"checkpoint={checkpoint}",
            f"dataset.path={store.path}",
            *(f"predictor.{setting}" for setting in few),
        ]
    )
    out, _ = capsys.readouterr()
    assert status == 0
    assert "on held-out episodes" in out
    policy = prise.load_policy(checkpoint)
    assert isinstance(prise.make_controller(policy, "rti_learned"), RTILearnedController)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("predictor.episodes=7", "has 6; set predictor.episodes"),
        ("predictor.episodes=1", "one is held out"),
        ("predictor.hidden=0", "must be 1 or more"),
        ("predictor.lr=0", "lr above 0"),
    ],
)
def test_settings_that_cannot_work_are_one_line(
    checkpoint: Path,
    store: DemoStore,
    capsys: pytest.CaptureFixture[str],
    setting: str,
    message: str,
) -> None:
    few = ["predictor.episodes=2", "predictor.steps=1", f"dataset.path={store.path}"]
    assert prise.main(["predictor", f"checkpoint={checkpoint}", *few, setting]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("prise predictor: error: ")
    assert message in last
    assert not (checkpoint / PREDICTOR).exists()
