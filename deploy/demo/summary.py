"""All figures of a demo, and what is needed to make them again."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from data.results import Row, paired_difference, read_results
from deploy.demo.markers import FOLDER, Marker
from deploy.demo.plan import BENCH, DATA, ROS2, Plan, quoted, training_arguments
from deploy.report.run_files import COLLECT, RESULTS, read_json

PACKAGES = ("torch", "numpy", "mujoco", "gymnasium", "zarr", "ros-rclpy")


def all_rows(plan: Plan) -> list[Row]:
    """Rows of every step, the differences between arms, and minutes."""
    rows = [row for path in _results_files(plan) for row in read_results(path).rows]
    return [*rows, *_differences(plan), *_collected_rows(plan), *_minutes(plan)]


def short(rows: Sequence[Row]) -> list[Row]:
    """What to print at the end: success of each arm, with no more context than tells them apart."""
    keys = ("obs", "controller", "wire")
    return [
        replace(row, context={key: row.context[key] for key in keys})
        for row in rows
        if row.name == "success"
    ]


def _results_files(plan: Plan) -> list[Path]:
    arms = [plan.episodes(*arm).with_name(RESULTS) for arm in plan.arms]
    return [*arms, plan.run / ROS2 / RESULTS, plan.run / BENCH / RESULTS]


def _differences(plan: Plan) -> list[Row]:
    """The first arm against each other one, on the same seeds."""
    successes = {arm: [e["success"] for e in read_json(plan.episodes(*arm))] for arm in plan.arms}
    (obs, controller), *others = plan.arms
    rows = []
    for other_obs, other_controller in others:
        pair = (successes[obs, controller], successes[other_obs, other_controller])
        count = min(len(successes_) for successes_ in pair)  # a slow one has the first seeds
        pair = (pair[0][:count], pair[1][:count])
        context = {
            "obs": obs,
            "controller": controller,
            "wire": "lockstep",
            "against_obs": other_obs,
            "against_controller": other_controller,
        }
        rows.append(Row("success_difference", *paired_difference(*pair), len(pair[0]), "", context))
    return rows


def _collected_rows(plan: Plan) -> list[Row]:
    collected = read_json(plan.run / COLLECT)
    context = {"workers": collected["workers"], "image_size": collected["image_size"]}
    factor = collected["realtime_factor"]
    return [Row("collect_realtime", factor, n=collected["episodes"], unit="x", context=context)]


def _minutes(plan: Plan) -> list[Row]:
    """Of each step so far, and of all."""
    names = [path.stem for path in sorted((plan.run / FOLDER).glob("*.json"))]
    taken = {name: m.minutes for name in names if (m := Marker.read(plan.run, name)) and m.done}
    order = [name for name in plan.config["minutes"] if name in taken]
    rows = [Row("minutes", taken[n], unit="min", context={"step": n}) for n in order]
    return [Row("minutes", sum(taken.values()), unit="min", context={"step": "all"}), *rows]


def facts(plan: Plan) -> dict[str, Any]:
    """Config, versions, seeds and commands."""
    versions = {"python": platform.python_version(), "system": platform.platform()}
    for package in PACKAGES:
        versions[package] = metadata.version(package)
    names = {"evaluate": "seeds, lock-step", "ros2": "seeds, ROS 2"}
    return {
        "config": plan.config,
        "written": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "versions": versions,
        "seeds": {
            words: f"{plan.seeds(part)[0]} to {plan.seeds(part)[-1]}"
            for part, words in names.items()
        },
        "commands": [["./run", "demo"], *_commands(plan)],
    }


def _commands(plan: Plan) -> list[list[str]]:
    """The same by single commands."""
    config = plan.config
    data, size = quoted(plan.run / DATA), config["env"]["kwargs"]["image_size"]
    collected = [f"{key}={config['collect'][key]}" for key in ("episodes", "seed0")]
    commands = [
        ["collect", *collected, f"env.kwargs.image_size={size}", f"dataset.path={data}"],
        *(["train", *training_arguments(plan, obs)] for obs in config["evaluate"]["controllers"]),
    ]
    evaluated = [f"{key}={config['evaluate'][key]}" for key in ("seed0", "delay")]
    for obs, controller in plan.arms:
        checkpoint = f"checkpoint={quoted(plan.checkpoint(obs))}"
        episodes = f"episodes={len(plan.arm_seeds(controller))}"
        commands.append(["eval", checkpoint, f"controller={controller}", episodes, *evaluated])
    checkpoint = f"checkpoint={quoted(plan.checkpoint(plan.arms[0][0]))}"
    rounds = f"rounds={config['bench']['rounds']}"
    commands.append(["bench", "tick", checkpoint, f"dataset.path={data}", rounds])
    return [["prise", *command] for command in commands]
