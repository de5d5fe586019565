"""What a demo is asked to do, and where each part of it is kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from deploy.commands.usage import CONFIGS
from deploy.report.run_files import RUNS

DATA, EVAL, ROS2, BENCH, LOGS = "data.zarr", "eval", "ros2", "bench", "logs"
KEPT = "episodes.json"


@dataclass(frozen=True)
class Plan:
    """The demo's config and the folder that everything goes into."""

    config: Mapping[str, Any]
    run: Path

    @property
    def arms(self) -> list[tuple[str, str]]:
        """(observation, controller) of each evaluation; the first one is what the demo is about."""
        chosen = self.config["evaluate"]["controllers"]
        return [
            (obs, controller) for obs, controllers in chosen.items() for controller in controllers
        ]

    def checkpoint(self, obs: str) -> Path:
        """Where the training of a policy leaves it."""
        return self.run / RUNS / obs / "last"

    def episodes(self, obs: str, controller: str) -> Path:
        """What an evaluation keeps of its episodes."""
        return self.run / EVAL / f"{obs}_{controller}" / KEPT

    def seeds(self, part: str) -> range:
        """Seeds of a part of the config."""
        settings = self.config[part]
        return range(settings["seed0"], settings["seed0"] + settings["episodes"])

    def arm_seeds(self, controller: str) -> range:
        """Seeds that a controller is evaluated on: all, or the first ones for a slow one."""
        seeds = self.seeds("evaluate")
        return seeds[: self.config["evaluate"]["fewer"].get(controller, len(seeds))]

    @property
    def shown_arms(self) -> list[tuple[str, str]]:
        """The first controller of each policy: of these arms episodes can be shown."""
        chosen = self.config["evaluate"]["controllers"]
        return [(obs, controllers[0]) for obs, controllers in chosen.items()]


def training_arguments(plan: Plan, obs: str) -> list[str]:
    """What `prise train` is told for one of the policies."""
    settings = plan.config["train"]
    return [
        f"experiment=demo_{obs}",
        f"dataset.path={quoted(plan.run / DATA)}",
        f"out={quoted(plan.run / RUNS / obs)}",
        f"train.steps={settings['steps']}",
        f"train.batch_size={settings['batch_size']}",
        "train.threads=1",
        *settings["overrides"],
    ]


def controller_config(name: str) -> dict[str, Any]:
    """`configs/controller/NAME.yaml`."""
    return config_file(f"controller/{name}")


def config_file(name: str) -> dict[str, Any]:
    """`configs/NAME.yaml`."""
    path = CONFIGS / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"there is no {path}; choose a {path.parent.name} that is there.")
    config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return config


def quoted(path: Path) -> str:
    """A path as the value of an argument, whatever is in it."""
    if re.fullmatch(r"[\w./-]+", str(path.absolute())):
        return str(path.absolute())
    return "'" + str(path.absolute()).replace("'", "\\'") + "'"


def say(text: str) -> None:
    """A line for the user, above any progress bar."""
    tqdm.write(text)
