"""Meta-World's tasks: their names, their goals, their experts, and a target that jumps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import prise
from data.build import build
from data.spec import Horizons
from deploy.commands.compose import ConfigError, compose
from deploy.commands.train import policy_config
from envs.base import EnvFactory
from envs.collect import demonstrate
from envs.metaworld import gates
from envs.metaworld.env import STATES, MetaWorldEnv, metaworld_spec
from envs.metaworld.expert import MetaWorldExpert
from envs.metaworld.simulation import TARGETS
from envs.metaworld.tasks import TASKS, task_named
from policy.diffusion_policy import DiffusionPolicy

STILL = np.zeros(4, np.float32)
QUICK = ("button-press", "drawer-open", "peg-insert-side", "pick-place", "window-close")


def first_ticks(env: MetaWorldEnv, seed: int, ticks: int = 30) -> NDArray[np.float64]:
    """States of the first ticks under the noisy expert."""
    expert = MetaWorldExpert()
    expert.reset(seed)
    obs, info = env.reset(seed=seed)
    states = [info["state"]]
    for _ in range(ticks):
        obs, _, _, _, info = env.step(expert.act(obs, info).to_execute)
        states.append(info["state"])
    return np.stack(states)


def successes(env: MetaWorldEnv, seeds: range) -> float:
    expert = MetaWorldExpert()
    return float(np.mean([demonstrate(env, expert, seed).success for seed in seeds]))


def test_the_names_are_those_of_the_package() -> None:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    assert sorted(f"{task}-v3" for task in TASKS) == sorted(ALL_V3_ENVIRONMENTS)


@pytest.mark.parametrize("verb", ["collect", "train", "eval", "bench"])
def test_each_task_is_an_option_of_each_verb(verb: str) -> None:
    needed = {"eval": ["checkpoint=x"], "bench": ["what=gates"]}.get(verb, [])
    for name in ("pick-place", "pick-place-v3"):
        config = compose(verb, [f"env=metaworld/{name}", *needed])
        assert build(config["env"]).kwargs["task"] == "pick-place"


def test_a_task_brings_its_expert_and_its_dataset() -> None:
    config = compose("collect", ["env=metaworld/reach"])
    assert config["expert"]["_target_"] == "envs.metaworld.expert.MetaWorldExpert"
    assert config["dataset"]["path"].endswith("data/metaworld/reach.zarr")
    assert compose("collect", ["env=metaworld/reach", "expert=pry"])["choices"]["expert"] == "pry"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pick-plase", "Meta-World has no task 'pick-plase'; did you mean pick-place or"),
        ("qqq", "Meta-World has no task 'qqq'; known: assembly, basketball,"),
    ],
)
def test_an_unknown_task_names_what_is_near(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compose("collect", [f"env=metaworld/{name}"])
    with pytest.raises(ConfigError, match="did you mean metaworld"):
        compose("collect", ["env=metaworl"])


def test_nothing_but_its_tasks_imports_the_package() -> None:
    code = (
        "import sys, envs, deploy.commands.collect; "
        "from deploy.commands.compose import compose; compose('collect', ['env=metaworld/reach']); "
        "assert 'metaworld' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_extra_one_line_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "metaworld"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("env", "expert", "simulation"):
        monkeypatch.delitem(sys.modules, f"envs.metaworld.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "metaworld", None)
    path = tmp_path / "demos.zarr"
    assert prise.main(["collect", "env=metaworld/reach", f"dataset.path={path}"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "pip install -e '.[metaworld]'" in said[0]
    assert not path.exists()


def test_the_states_are_all_of_the_present_observation_and_the_goal() -> None:
    places = [i for where, _ in STATES.values() for i in range(where.start, where.stop)]
    assert places == [*range(18), 36, 37, 38]


@pytest.mark.parametrize("task", QUICK)
def test_a_seed_is_an_episode_whatever_came_before(task: str) -> None:
    env = MetaWorldEnv(task)
    fresh = first_ticks(env, 7)
    first_ticks(env, 8, ticks=80)
    np.testing.assert_array_equal(first_ticks(env, 7), fresh)
    np.testing.assert_array_equal(first_ticks(MetaWorldEnv(task), 7), fresh)


@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(set(TASKS) - set(QUICK)))
def test_a_seed_is_an_episode_in_every_task(task: str) -> None:
    test_a_seed_is_an_episode_whatever_came_before(task)


@pytest.mark.parametrize("task", QUICK)
def test_other_seeds_have_other_scenes(task: str) -> None:
    env = MetaWorldEnv(task)
    seeds = (0, 1, 1_000_000, 1_000_001, 2_000_000)
    states = [env.reset(seed=seed)[1]["state"] for seed in seeds]
    assert len(np.unique(np.round(states, 6), axis=0)) == len(seeds)


def test_the_goal_is_observed() -> None:
    env = MetaWorldEnv("pick-place")
    goals = [env.reset(seed=seed)[0]["goal"] for seed in range(3)]
    assert all(0.8 <= goal[1] <= 0.9 for goal in goals)


@pytest.mark.parametrize("task", QUICK)
def test_the_expert_succeeds_in_most_episodes(task: str) -> None:
    assert successes(MetaWorldEnv(task), range(5)) >= 0.8


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_every_expert_succeeds_in_most_episodes(task: str) -> None:
    assert successes(MetaWorldEnv(task), range(15)) >= 0.6


def test_the_label_is_clean_and_within_the_action_space() -> None:
    env, expert = MetaWorldEnv("reach"), MetaWorldExpert(noise=0.5)
    expert.reset(0)
    choice = expert.act(*env.reset(seed=0))
    assert np.array_equal(choice.action, MetaWorldExpert(noise=0.0).act(*env.reset(seed=0)).action)
    assert np.abs(choice.to_execute).max() <= 1
    assert choice.to_execute[3] == choice.action[3]
    assert not np.array_equal(choice.to_execute, choice.action)


def run(env: MetaWorldEnv, seed: int = 0) -> tuple[int, dict[str, Any]]:
    """Ticks and the last `info` of an episode of the expert without noise."""
    expert = MetaWorldExpert(noise=0.0)
    obs, info = env.reset(seed=seed)
    ticks, over = 0, False
    while not over:
        obs, _, terminated, truncated, info = env.step(expert.act(obs, info).to_execute)
        ticks, over = ticks + 1, terminated or truncated
    return ticks, info


def test_when_an_episode_ends_does_not_change_its_success() -> None:
    early, full = (run(MetaWorldEnv("push", after_success=n)) for n in (0, 500))
    assert (full[0], early[1]["success"], full[1]["success"]) == (500, True, True)
    assert early[0] == round(80 * full[1]["metrics"]["success_after_s"])
    assert early[1]["outcome"] == full[1]["outcome"] == "success"


def test_success_at_the_end_is_the_last_ticks_flag() -> None:
    reached, _ = run(MetaWorldEnv("reach", after_success=0))
    env, expert = MetaWorldEnv("reach", after_success=150), MetaWorldExpert(noise=0.0)
    obs, info = env.reset(seed=0)
    for tick in range(reached + 150):
        action = expert.act(obs, info).to_execute
        leaving = np.array([0, -1, 1, 0], np.float32)
        obs, *_, info = env.step(action if tick < reached else leaving)
    assert info["success"]
    assert info["metrics"]["success_at_end"] == 0.0


def test_a_policy_that_does_nothing_runs_out_of_time() -> None:
    env = MetaWorldEnv("reach")
    env.reset(seed=0)
    for _ in range(499):
        assert not any(env.step(STILL)[2:4])
    _, _, terminated, truncated, info = env.step(STILL)
    assert (terminated, truncated, info["outcome"]) == (False, True, "timeout")


@pytest.mark.parametrize("task", TARGETS)
def test_the_observed_goal_jumps_at_its_tick(task: str) -> None:
    by = np.array([0.02, 0.06, 0.0], np.float32)
    env = MetaWorldEnv(task, jump_at=5, jump_by=by.tolist())
    for _ in range(2):  # the second episode starts where the target was drawn
        obs, _ = env.reset(seed=3)
        goals = [obs["goal"], *(env.step(STILL)[0]["goal"] for _ in range(7))]
        before, after = np.stack(goals[:5]), np.stack(goals[5:])
        np.testing.assert_allclose(before, before[:1].repeat(5, 0), atol=1e-6)
        np.testing.assert_allclose(after, (before[0] + by)[None].repeat(3, 0), atol=1e-6)
        np.testing.assert_array_equal(before[0], MetaWorldEnv(task).reset(seed=3)[0]["goal"])


@pytest.mark.parametrize("task", ["peg-insert-side", "pick-place"])
def test_the_expert_follows_a_jump_and_success_counts_from_it(task: str) -> None:
    env = MetaWorldEnv(task, jump_at=60, jump_by=(0.0, 0.05, 0.0))
    ticks, info = run(env, seed=2)
    assert info["success"]
    assert ticks > 60


def test_what_belongs_to_the_target_moves_with_it() -> None:
    env = MetaWorldEnv("peg-insert-side", jump_at=1, jump_by=(0.0, 0.1, 0.0))
    env.reset(seed=0)
    before = env.sim.data.body("box").xpos.copy()
    env.step(STILL)
    env.step(STILL)
    np.testing.assert_allclose(env.sim.data.body("box").xpos - before, [0, 0.1, 0], atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "door-open", "jump_at": 3}, "the target of Meta-World's 'door-open' cannot jump"),
        ({"jump_at": 0}, "jump_at must be tick 1 or a later one, got 0"),
        ({"jump_by": [1.0]}, r"jump_by must be three numbers \[m\], got \[1.0\]"),
        ({"after_success": -1}, "after_success must be 0 or more ticks, got -1"),
        ({"cameras": ["wrist"]}, r"Meta-World has no cameras \['wrist'\]; known: corner"),
    ],
)
def test_a_wrong_setting_is_explained(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EnvFactory("Prise/MetaWorld-v0", settings)()


@pytest.mark.parametrize("action", [[0, 0, 0], [0, 0, 0, 1.5], [0, 0, np.nan, 0]])
def test_an_action_outside_the_space_is_refused(action: list[float]) -> None:
    env = MetaWorldEnv("reach")
    env.reset(seed=0)
    with pytest.raises(ValueError, match="wanted"):
        env.step(np.array(action, np.float32))


def test_the_gates_are_measured(tmp_path: Path) -> None:
    rows = gates.run(EnvFactory("Prise/MetaWorld-v0", {"task": "reach"}), tmp_path, 2, workers=1)
    assert {row.name: row.value for row in rows} == {
        "gate_still": 0.0,
        "gate_expert": 1.0,
        "gate_noisy": 1.0,
    }
    assert all(row.context["holds"] for row in rows)


@pytest.mark.slow
def test_cameras_see_the_scene_upright_and_the_goal_in_it() -> None:
    env = MetaWorldEnv("pick-place", image_size=96, cameras=("corner2", "gripperPOV"))
    obs, _ = env.reset(seed=0)
    env.data_spec.check_obs(obs)
    frame = env.render().astype(int)
    blue = (frame[..., 2] > 150) & (frame[..., 0] < 80) & (frame[..., 1] < 80)
    red = (frame[..., 0] > 100) & (frame[..., 1] < 60) & (frame[..., 2] < 60)
    assert blue.any()
    # The arm stands on the left and reaches down to the table, which fills the lower half.
    assert np.argwhere(red)[:, 0].min() > 40
    env.close()


def test_the_experiment_builds_a_policy_of_the_states() -> None:
    config = compose("train", ["experiment=metaworld_state", "env=metaworld/assembly"])
    spec = metaworld_spec(task_named("assembly"), 1, ())
    policy = build(policy_config(config), spec=spec, horizons=Horizons(**config["horizons"]))
    assert isinstance(policy, DiffusionPolicy)
    assert set(policy.spec.obs) == set(STATES)
    assert config["dataset"]["path"].endswith("metaworld/assembly.zarr")
