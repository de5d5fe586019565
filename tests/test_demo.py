"""The demo does each step once, goes on where it was stopped, and redoes what has changed."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from deploy.commands.compose import compose
from deploy.demo import pipeline
from deploy.demo.markers import Marker
from deploy.demo.pipeline import STEPS, DemoError, Step, check, digest, run, time_left
from deploy.demo.plan import LOGS, Plan, quoted, training_arguments
from deploy.demo.training import ChildFailedError, TrainingJob, train_together


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    return compose("demo", [])


@pytest.fixture
def config(tmp_path: Path, composed: dict[str, Any]) -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(composed))
    return copied | {"out": str(tmp_path / "demo")}


@pytest.fixture
def plan(config: dict[str, Any]) -> Plan:
    return Plan(config, Path(config["out"]))


class Diary:
    """Three steps that write a file each, and a note of what was done."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.fails: BaseException | None = None

    def steps(self) -> tuple[Step, ...]:
        return (
            self._step("collect", ("collect",), ()),
            self._step("train", ("train",), ("collect",)),
            self._step("report", (), ("train",)),
        )

    def _step(self, name: str, settings: tuple[str, ...], after: tuple[str, ...]) -> Step:
        def do(plan: Plan) -> None:
            if name == "train" and self.fails is not None:
                (plan.run / "half").write_text("half")
                raise self.fails
            self.done.append(name)
            assert not (plan.run / name).exists()  # what a step with other settings left is gone
            (plan.run / name).write_text(name)

        return Step(name, "writes a file", do, settings, (), after, (name,))


@pytest.fixture
def diary(monkeypatch: pytest.MonkeyPatch) -> Diary:
    diary = Diary()
    monkeypatch.setattr(pipeline, "STEPS", diary.steps())
    return diary


def test_second_run_does_nothing_and_says_where_the_report_is(
    config: dict[str, Any], diary: Diary, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(config) == 0
    assert diary.done == ["collect", "train", "report"]
    capsys.readouterr()
    assert run(config) == 0
    assert diary.done == ["collect", "train", "report"]
    said = capsys.readouterr().out
    assert said.startswith("all steps were done before")
    assert f"{config['out']}/report.html" in said


def test_changed_settings_redo_the_step_and_what_builds_on_it(
    config: dict[str, Any], diary: Diary
) -> None:
    run(config)
    diary.done.clear()
    config["train"]["steps"] += 1
    run(config)
    assert diary.done == ["train", "report"]


def test_removed_output_is_made_again(config: dict[str, Any], diary: Diary) -> None:
    run(config)
    diary.done.clear()
    (Path(config["out"]) / "train").unlink()
    run(config)
    assert "train" in diary.done
    assert "collect" not in diary.done


def test_failure_names_step_and_log_and_is_resumable(config: dict[str, Any], diary: Diary) -> None:
    diary.fails = RuntimeError("no space left.\nsecond line")
    with pytest.raises(DemoError) as caught:
        run(config)
    log = Path(config["out"]) / LOGS / "train.log"
    assert str(caught.value).startswith(f"step 2 of 3, train, failed: no space left. Log: {log}.")
    assert "second line" in log.read_text()
    diary.fails = None
    assert run(config) == 0
    assert diary.done == ["collect", "train", "report"]


def test_interrupt_keeps_what_is_done_and_the_minutes(
    config: dict[str, Any], diary: Diary, plan: Plan
) -> None:
    diary.fails = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(config)
    marker = Marker.read(plan.run, "train")
    assert marker is not None
    assert not marker.done
    assert marker.minutes > 0
    diary.fails = None
    run(config)
    after = Marker.read(plan.run, "train")
    assert after is not None
    assert after.done
    assert after.minutes >= marker.minutes
    assert diary.done == ["collect", "train", "report"]
    assert (plan.run / "half").exists()  # same settings: what was begun is gone on with


def test_two_demos_in_one_folder_are_refused(config: dict[str, Any], diary: Diary) -> None:
    out = Path(config["out"])
    out.mkdir()
    other = os.open(out, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(DemoError, match="another demo is running"):
        run(config)
    os.close(other)
    assert run(config) == 0


def test_time_left_follows_the_pace_so_far(plan: Plan) -> None:
    expected: Mapping[str, float] = plan.config["minutes"]
    assert expected.keys() == {step.name for step in STEPS}
    assert time_left(plan) == pytest.approx(sum(expected.values()))
    (plan.run / "data.zarr").mkdir(parents=True)
    (plan.run / "collect.json").write_text("{}")
    twice = 2 * expected["collect"]
    Marker(digest(plan, STEPS[0]), True, twice).write(plan.run, "collect")
    rest = sum(minutes for name, minutes in expected.items() if name != "collect")
    assert time_left(plan) == pytest.approx(2 * rest)


def test_steps_depend_on_earlier_ones_only() -> None:
    names = [step.name for step in STEPS]
    for index, step in enumerate(STEPS):
        assert set(step.after) <= set(names[:index])


def test_no_seed_is_used_twice(plan: Plan) -> None:
    check(plan)
    plan.config["evaluate"]["seed0"] = plan.config["collect"]["seed0"] + 10
    with pytest.raises(ValueError, match=r"collect and evaluate would use the same seeds"):
        check(plan)


def _no_controllers(config: dict[str, Any]) -> None:
    config["evaluate"]["controllers"] = {}


def _unknown_controller(config: dict[str, Any]) -> None:
    config["evaluate"]["controllers"]["vision"] = ["pid"]


def _unknown_policy(config: dict[str, Any]) -> None:
    config["evaluate"]["controllers"]["smell"] = ["rti"]


def _no_episodes(config: dict[str, Any]) -> None:
    config["ros2"]["episodes"] = 0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_no_controllers, "names no controller"),
        (_unknown_controller, r"pid\.yaml"),
        (_unknown_policy, r"demo_smell\.yaml"),
        (_no_episodes, "ros2.episodes must be at least 1, got 0"),
    ],
)
def test_bad_config_is_refused_before_anything_is_written(
    config: dict[str, Any], spoil: Callable[[dict[str, Any]], None], message: str
) -> None:
    spoil(config)
    with pytest.raises(ValueError, match=message):
        run(config)
    assert not Path(config["out"]).exists()


def test_policies_differ_in_their_senses_alone(plan: Plan) -> None:
    both = [compose("train", training_arguments(plan, o)) for o in ("vision_force", "vision")]
    for trained in both:
        trained["choices"].pop("encoder")
        trained["choices"].pop("experiment")
    one, two = ({k: v for k, v in c.items() if k not in ("name", "out")} for c in both)
    assert one.pop("encoder")["encoders"].keys() - two.pop("encoder")["encoders"] == {"wrench"}
    assert one == two


@pytest.mark.parametrize("path", ["/a/plain-path_1.zarr", "/it's odd/a,b=c"])
def test_paths_arrive_as_they_are(path: str) -> None:
    assert compose("train", [f"dataset.path={quoted(Path(path))}"])["dataset"]["path"] == path


@pytest.mark.slow
def test_failed_training_names_its_log(tmp_path: Path) -> None:
    arguments = [f"dataset.path={tmp_path}/none.zarr", f"out={tmp_path}/run"]
    with pytest.raises(ChildFailedError, match=r"training blind failed.*none\.zarr.*train_blind"):
        train_together([TrainingJob("blind", arguments, tmp_path / "run", 10)], tmp_path)
