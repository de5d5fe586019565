"""Every config composes, and every component that it names builds."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.build import build
from data.spec import Horizons
from deploy.commands.compose import ConfigError, compose
from deploy.commands.train import policy_config
from deploy.commands.usage import CONFIGS, groups
from envs.metaworld.env import metaworld_spec
from envs.pry.env import pry_spec
from policy.config import TrainConfig
from policy.diffusion_policy import DiffusionPolicy
from prise import VERBS, make_controller

NEEDED = {
    "bench": ["what=gates"],
    "calibrate": ["checkpoint=x", "dataset.path=x"],
    "eval": ["checkpoint=x"],
    "export": ["checkpoint=x"],
    "inspect": ["path=x"],
    "predictor": ["checkpoint=x"],
    "report": ["run=x"],
}
# Controllers that want more than a policy: what they say without it.
NEEDED_FILES = {
    "rti_learned": "a predictor lies in a checkpoint's folder",
    "adaptive": "prise calibrate",  # built from a calibrated checkpoint in tests/test_calibrate.py
}
HORIZONS = Horizons(obs=2, pred=16, window=32)
SPEC = pry_spec(image_size=32, cameras=("wrist", "scene"))
METAWORLD = metaworld_spec("reach", image_size=32, cameras=())


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def policy_of(*arguments: str) -> DiffusionPolicy:
    config = policy_config(compose("train", arguments))
    spec = METAWORLD if "encoder=metaworld" in arguments else SPEC
    policy = build(config, spec=spec, horizons=HORIZONS)
    assert isinstance(policy, DiffusionPolicy)
    return policy


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_composes_with_its_defaults(verb: str) -> None:
    assert compose(verb, NEEDED.get(verb, []))["choices"].keys() == groups(verb).keys()


@pytest.mark.parametrize("group", sorted({group for verb in VERBS for group in groups(verb)}))
def test_each_option_of_each_group_composes(group: str) -> None:
    verb = next(verb for verb in VERBS if group in groups(verb))
    for option in options(group):
        config = compose(verb, [*NEEDED.get(verb, []), f"{group}={option}"])
        assert config["choices"][group] == option


def test_every_group_is_used() -> None:
    folders = {path.name for path in CONFIGS.iterdir() if path.is_dir()}
    assert folders == {group for verb in VERBS for group in groups(verb)}


@pytest.mark.parametrize("experiment", options("experiment"))
def test_each_experiment_names_itself_and_is_valid(experiment: str) -> None:
    config = compose("train", [f"experiment={experiment}"])
    assert config["name"] == experiment
    assert config["out"].endswith(f"runs/{experiment}")
    TrainConfig(**config["train"])


@pytest.mark.parametrize(
    "choice",
    [
        f"{group}={option}"
        for group in ("encoder", "denoiser", "schedule", "parameterization", "sampler", "levels")
        for option in options(group)
    ],
)
def test_each_part_builds_a_policy(choice: str) -> None:
    assert policy_of(choice).horizons == HORIZONS


def test_encoders_look_at_what_their_name_says() -> None:
    keys = {name: set(policy_of(f"encoder={name}").spec.obs) for name in options("encoder")}
    assert keys["vision"] == {"wrist_rgb", "scene_rgb", "pose"}
    assert keys["force"] == {"pose", "wrench"}
    rest = {name for name in keys if name.startswith("vision_force")}
    assert all(keys[name] == set(SPEC.obs) for name in rest)


@pytest.mark.parametrize("name", options("controller"))
def test_each_controller_builds(name: str) -> None:
    levels = {"rtc_trained": "prefix", "streaming": "rising"}.get(name, "constant")
    policy = policy_of("encoder=force", f"levels={levels}")
    if name in NEEDED_FILES:
        with pytest.raises(ValueError, match=NEEDED_FILES[name]):
            make_controller(policy, name)
    else:
        assert make_controller(policy, name).spec == policy.spec


@pytest.mark.parametrize("option", options("robot"))
def test_each_robot_builds(option: str) -> None:
    config = compose("deploy", [f"robot={option}"])["robot"]
    assert type(build(config)).__name__ == config["_target_"].rpartition(".")[2]


@pytest.mark.parametrize("option", options("env"))
def test_each_environment_and_its_expert_build(option: str) -> None:
    config = compose("collect", [f"env={option}", f"expert={option}"])
    env = build(config["env"])()
    expert = build(config["expert"])()
    try:
        obs, info = env.reset(seed=0)
        expert.reset(0)
        env.get_wrapper_attr("data_spec").check_obs(obs)
        assert expert.act(obs, info).action.shape == env.action_space.shape
    finally:
        env.close()


def test_training_defaults_are_those_of_the_code() -> None:
    assert TrainConfig(**compose("train", [])["train"]) == TrainConfig()
    listed = yaml.safe_load((CONFIGS / "train" / "default.yaml").read_text(encoding="utf-8"))
    assert listed.keys() == asdict(TrainConfig()).keys()


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda p: p.stem)
def test_configs_are_short_and_do_not_compute(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40
    assert "${eval" not in text
    assert "!!python" not in text
    assert "\t" not in text


def test_datasets_and_runs_live_under_prise_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRISE_HOME", "/somewhere")
    config = compose("train", ["name=mine"])
    assert config["dataset"]["path"] == "/somewhere/data/pry.zarr"
    assert config["out"] == "/somewhere/runs/mine"


def test_overrides_win_over_an_experiment() -> None:
    config = compose("train", ["experiment=pry_vision_force", "encoder=force", "train.steps=7"])
    assert config["train"]["steps"] == 7
    assert "wrist_rgb" not in config["encoder"]["encoders"]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("train.lr=1", 1),
        ("train.betas=[0.5,0.6]", [0.5, 0.6]),
        ("name=7", "7"),
        ("+env.kwargs.tolerance=0.002", 0.002),
        ("out='/a b/c=d'", "/a b/c=d"),
    ],
)
def test_values_arrive_as_they_were_meant(argument: str, value: Any) -> None:
    node: Any = compose("train", [argument])
    for part in argument.lstrip("+").split("=")[0].split("."):
        node = node[part]
    assert node == value
    assert type(node) is type(value)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("train.steps=many", "train.steps must be a whole number, got 'many'."),
        ("train.steps=1.5", "train.steps must be a whole number, got 1.5."),
        ("train.lr=true", "train.lr must be a number, got True."),
        ("train.betas=3", "train.betas must be a list [a,b], got 3."),
        ("resume=1", "resume must be true or false, got 1."),
        ("name=[a]", "name must be text, got ['a']."),
        ("train=3", "group train has no option 3. Known: default."),
        ("horizons=3", "horizons has keys of its own, got 3; set horizons.KEY=..."),
        (
            "denoiser=transfomer",
            "group denoiser has no option 'transfomer', did you mean transformer? "
            "Known: transformer, unet1d.",
        ),
        (
            "train.step=3",
            "unknown key 'train.step', did you mean train.steps? "
            "`prise train --help` lists the keys.",
        ),
        (
            "batch_size=3",
            "unknown key 'batch_size', did you mean train.batch_size? "
            "`prise train --help` lists the keys.",
        ),
        ("qqq=3", "unknown key 'qqq'. `prise train --help` lists the keys."),
        ("hydra.run.dir=x", "unknown key 'hydra.run.dir'. `prise train --help` lists the keys."),
        (
            "out=a=b",
            "cannot read the argument 'out=a=b': write key=value; "
            "quote an unusual value: \"out='a=b'\".",
        ),
        ("steps", "cannot read the argument 'steps': write key=value."),
    ],
)
def test_a_wrong_argument_is_explained(argument: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose("train", [argument])
    assert str(caught.value) == message


def test_a_missing_value_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="checkpoint is needed: add checkpoint="):
        compose("eval", [])


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("controller.start_level=estimated", "estimated"),
        ("controller.start_level=0.4", 0.4),
        ("controller.start_level=1", 1),
    ],
)
def test_a_level_is_a_number_or_the_word_for_the_calibrated_one(
    argument: str, value: float | str
) -> None:
    config = compose("eval", ["checkpoint=c", argument])
    assert config["controller"]["start_level"] == value
    adaptive = compose(
        "eval", ["checkpoint=c", "controller=adaptive", argument.replace("start", "probe")]
    )
    assert adaptive["controller"]["probe_level"] == value
    with pytest.raises(ConfigError, match="start_level must be a number, got 'guessed'"):
        compose("eval", ["checkpoint=c", "controller.start_level=guessed"])
