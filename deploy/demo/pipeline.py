"""The steps of the demo in order: skipped when done, resumed when begun, timed and announced."""

from __future__ import annotations

import fcntl
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from deploy.commands.usage import CONFIGS
from deploy.demo import steps
from deploy.demo.markers import Marker, clear, digest_of
from deploy.demo.plan import BENCH, DATA, EVAL, LOGS, ROS2, Plan, controller_config, say
from deploy.report.run_files import COLLECT, EPISODES, FACTS, REPORT, RESULTS, RUNS

TRAINING = ("encoder", "denoiser", "schedule", "parameterization", "sampler", "train")


class DemoError(ValueError):
    """A step failed; says which, why, and where its log is."""


@dataclass(frozen=True)
class Step:
    """One step: what its result depends on and what it leaves behind.

    Attributes:
        settings: Parts of the config.
        files: Patterns of config files.
        after: Steps whose results it uses.
        outputs: Files and folders in the run, removed when one of the former has changed.
    """

    name: str
    about: str
    do: Callable[[Plan], None]
    settings: tuple[str, ...]
    files: tuple[str, ...]
    after: tuple[str, ...]
    outputs: tuple[str, ...]


STEPS = (
    Step(
        "collect",
        "demonstrations of the scripted expert",
        steps.collect,
        ("env", "collect"),
        (),
        (),
        (DATA, COLLECT),
    ),
    Step(
        "train",
        "all policies at the same time, same budget",
        steps.train,
        ("train",),
        ("train.yaml", "experiment/demo_*.yaml", *(f"{group}/*.yaml" for group in TRAINING)),
        ("collect",),
        (RUNS,),
    ),
    Step(
        "evaluate",
        "in lock-step simulation, the same unseen seeds for each arm",
        steps.evaluate,
        ("evaluate",),
        ("controller/*.yaml",),
        ("train",),
        (EVAL,),
    ),
    Step(
        "ros2",
        "over ROS 2 in wall-clock time",
        steps.ros2,
        ("ros2", "evaluate"),
        ("robot/*ros2.yaml", "controller/*.yaml"),
        ("train",),
        (ROS2,),
    ),
    Step(
        "bench",
        "latency of a tick, alone",
        steps.bench,
        ("bench", "evaluate"),
        ("controller/*.yaml",),
        ("train",),
        (BENCH,),
    ),
    Step("replay", "videos", steps.replay, (), (), ("evaluate",), (EPISODES,)),
    Step(
        "report",
        "tables, plots, page",
        steps.report,
        (),
        (),
        ("evaluate", "ros2", "bench", "replay"),
        (RESULTS, FACTS, REPORT),
    ),
)


def run(config: dict[str, Any]) -> int:
    """Do what is not done yet, then say where the report is."""
    plan = Plan(config, Path(config["out"]).absolute())
    check(plan)
    (plan.run / LOGS).mkdir(parents=True, exist_ok=True)
    with _alone(plan.run):
        done_before = [s.name for s in STEPS if _is_done(plan, s)]
        if done_before and len(done_before) < len(STEPS):
            say(f"done before: {', '.join(done_before)}")
        for number, step in enumerate(STEPS, 1):
            if not _is_done(plan, step):
                _do(plan, step, number)
    whole = sum(_minutes(plan).values())
    when = "all steps were done before" if len(done_before) == len(STEPS) else "the demo is done"
    say(f"{when}, {whole:.1f} min in all. Report: {plan.run / REPORT}")
    return 0


def check(plan: Plan) -> None:
    """Raise ValueError where the config cannot work, before any time is spent."""
    config = plan.config
    for part, key in (
        ("collect", "episodes"),
        ("collect", "workers"),
        ("train", "steps"),
        ("evaluate", "episodes"),
        ("evaluate", "workers"),
        ("ros2", "episodes"),
        ("bench", "rounds"),
    ):
        if config[part][key] < 1:
            raise ValueError(f"{part}.{key} must be at least 1, got {config[part][key]}.")
    if not plan.arms:
        raise ValueError("evaluate.controllers names no controller; give e.g. vision_force: [rti].")
    for obs, controllers in config["evaluate"]["controllers"].items():
        path = CONFIGS / "experiment" / f"demo_{obs}.yaml"
        if not controllers or not path.is_file():
            raise ValueError(
                f"evaluate.controllers.{obs} needs at least one controller and the file {path}."
            )
        for name in controllers:
            controller_config(name)
    ranges = {part: plan.seeds(part) for part in ("collect", "evaluate", "ros2")}
    names = sorted(ranges, key=lambda name: ranges[name].start)
    for before, after in pairwise(names):
        if ranges[before].stop > ranges[after].start:
            raise ValueError(
                f"{before} and {after} would use the same seeds; set {after}.seed0 to "
                f"{ranges[before].stop} or above."
            )


def digest(plan: Plan, step: Step) -> str:
    """Of everything that the step's result depends on."""
    settings = {part: plan.config[part] for part in step.settings}
    files = [path for pattern in step.files for path in CONFIGS.glob(pattern)]
    before = [digest(plan, other) for other in STEPS if other.name in step.after]
    return digest_of(settings, files, before)


def _is_done(plan: Plan, step: Step) -> bool:
    marker = Marker.read(plan.run, step.name)
    there = all((plan.run / output).exists() for output in step.outputs)
    return marker is not None and marker.done and marker.digest == digest(plan, step) and there


def _do(plan: Plan, step: Step, number: int) -> None:
    before = Marker.read(plan.run, step.name)
    marker = Marker(digest(plan, step), False, 0.0)
    if before is not None and before.digest == marker.digest and not before.done:
        marker = replace(marker, minutes=before.minutes)
    elif before is not None:
        say(f"      {step.name}: settings or files have changed, starting afresh")
        clear(plan.run, step.outputs)
    marker.write(plan.run, step.name)
    so_far, left = sum(_minutes(plan).values()), time_left(plan)
    say(
        f"[{number}/{len(STEPS)}] {step.name}: {step.about} | {so_far:.1f} min so far, "
        f"{f'about {left:.0f}' if left >= 1 else 'less than 1'} min left"
    )
    started = time.monotonic()
    done = False
    try:
        with _explained(plan, step, number):
            step.do(plan)
        done = True
    finally:
        minutes = marker.minutes + (time.monotonic() - started) / 60
        replace(marker, done=done, minutes=minutes).write(plan.run, step.name)


def time_left(plan: Plan) -> float:
    """Expected minutes of all that is not done, at the pace of what is."""
    expected: Mapping[str, float] = plan.config["minutes"]
    done = {step.name for step in STEPS if _is_done(plan, step)}
    planned = sum(expected.get(name, 0.0) for name in done)
    taken = _minutes(plan)
    pace = sum(taken[name] for name in done) / planned if planned else 1.0
    return pace * sum(minutes for name, minutes in expected.items() if name not in done)


def _minutes(plan: Plan) -> dict[str, float]:
    markers = {step.name: Marker.read(plan.run, step.name) for step in STEPS}
    return {name: marker.minutes for name, marker in markers.items() if marker is not None}


@contextmanager
def _explained(plan: Plan, step: Step, number: int) -> Iterator[None]:
    """What went wrong in one line; the rest of it in the step's log."""
    try:
        yield
    except (ValueError, OSError, RuntimeError, ModuleNotFoundError) as error:
        log = plan.run / LOGS / f"{step.name}.log"
        log.write_text(traceback.format_exc(), encoding="utf-8")
        words: Sequence[str] = str(error).strip().splitlines() or [type(error).__name__]
        raise DemoError(
            f"step {number} of {len(STEPS)}, {step.name}, failed: {words[0]} Log: {log}. "
            "The same command goes on from here."
        ) from error


@contextmanager
def _alone(run: Path) -> Iterator[None]:
    """Two demos in one folder would write over each other."""
    descriptor = os.open(run, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise DemoError(f"another demo is running in {run}; wait for it or set out=.") from error
    finally:
        os.close(descriptor)
