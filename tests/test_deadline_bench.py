"""`prise bench deadline` and `prise bench overhead` on a small real policy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import prise
from data.results import Row, read_results
from deploy.bench.deadline import update_rows
from tests.tiny_env import TINY_SPEC
from tests.tiny_policy import save_tiny_checkpoint
from tests.tiny_store import write_store


def named(rows: list[Row], name: str) -> list[Row]:
    return [row for row in rows if row.name == name]


def test_a_miss_is_an_update_that_returned_after_its_deadline() -> None:
    taken, nfe = np.array([1.0, 2.0, 3.0, 4.0]) / 1000, np.array([1.0, 0.0, 0.0, 1.0])
    rows = update_rows(taken, nfe, 2.5, {})
    (misses,), (planned,) = named(rows, "deadline_misses"), named(rows, "planned")
    assert (misses.value, misses.n) == (2, 4)
    assert planned.value == 0.5
    assert max(row.value for row in named(rows, "tick_ms")) == pytest.approx(4)


def test_the_deadline_is_the_given_part_of_the_normal_tick(tmp_path: Path) -> None:
    demos = write_store(tmp_path / "demos.zarr", [20, 20], TINY_SPEC).path
    checkpoint = save_tiny_checkpoint(tmp_path / "last")
    arguments = [f"checkpoint={checkpoint}", f"dataset.path={demos}", "ticks=20", "episodes=0"]
    assert prise.main(["bench", "deadline", *arguments, "fraction=50", f"out={tmp_path}"]) == 0
    rows = read_results(tmp_path / "results.json").rows
    (misses,) = named(rows, "deadline_misses")
    assert misses.n == 20
    assert misses.context["fraction"] == 50
    deadline = misses.context["deadline_ms"]
    assert isinstance(deadline, float)
    assert deadline > 0
    assert named(rows, "planned")[0].n == 20


def test_overhead_is_that_of_all_but_the_networks(tmp_path: Path) -> None:
    checkpoint = save_tiny_checkpoint(tmp_path / "last")
    arguments = [f"checkpoint={checkpoint}", "ticks=20", f"out={tmp_path}"]
    assert prise.main(["bench", "overhead", *arguments]) == 0
    medians = {
        row.context["part"]: row.value
        for row in read_results(tmp_path / "results.json").rows
        if row.context["percentile"] == 50
    }
    assert medians.keys() == {"all", "controller", "safety"}
    assert medians["all"] > medians["controller"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["deadline"], "add checkpoint=PATH"),
        (["deadline", "checkpoint=x", "ticks=0"], "ticks must be at least 1, got 0"),
        (["deadline", "checkpoint=x", "fraction=0"], "fraction must be above 0"),
        (["overhead"], "add checkpoint=PATH"),
        (["overhead", "checkpoint=x", "ticks=0"], "ticks must be at least 1"),
    ],
)
def test_what_cannot_be_measured_is_explained(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prise.main(["bench", *arguments]) == 2
    assert words in capsys.readouterr().err
