"""One row an episode, and two evaluations compared seed by seed."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from data.results import paired_difference
from deploy.commands.episodes import (
    check_paired,
    difference_row,
    read_episodes,
    write_episodes,
)
from envs.evaluate import EpisodeResult

ABOUT: dict[str, Any] = {"task": "pry", "split": None, "obs": "vision", "controller": "rti"}
ABOUT |= {"backend": "eager", "delay": 1, "wire": "lockstep"}


def results(successes: Sequence[bool], seed0: int = 10) -> list[EpisodeResult]:
    stats = {"tick_s": [0.004, 0.001, 0.006], "nfe": [10.0, 0.0, 1.0], "is_plan": [1.0, 0.0, 1.0]}
    return [
        EpisodeResult(seed, won, "success" if won else "a, b", {"peak_n": seed / 4}, 3, stats)
        for seed, won in enumerate(successes, seed0)
    ]


def test_a_file_holds_a_row_an_episode(tmp_path: Path) -> None:
    write_episodes(tmp_path / "new" / "episodes.csv", results([True, False]), ABOUT)
    with (tmp_path / "new" / "episodes.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first == {
        **{"task": "pry", "split": "", "obs": "vision", "controller": "rti", "backend": "eager"},
        **{"delay": "1", "seed": "10", "success": "1", "outcome": "success", "ticks": "3"},
        **{"nfe_per_tick": "3.666667", "tick_ms_mean": "5.0", "peak_n": "2.5"},
    }
    assert (second["seed"], second["success"], second["outcome"]) == ("11", "0", "a, b")


def test_success_is_paired_by_seed_whatever_the_order_and_the_rest_of_the_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "episodes.csv"
    theirs = results([True, False, True, False, True], seed0=8)
    write_episodes(path, theirs[::-1], {**ABOUT, "controller": "cold_ddim"})
    ours = results([True, True, True])
    other = read_episodes(tmp_path)  # the folder will do
    check_paired(other, ABOUT, [r.seed for r in ours])
    row = difference_row(ours, other, ABOUT)
    expected = paired_difference([True, True, True], [True, False, True])
    assert (row.value, row.low, row.high) == pytest.approx(expected)
    assert row.n == 3
    assert row.context["controller"] == "rti"
    assert row.context["against_controller"] == "cold_ddim"


def test_what_cannot_be_paired_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "episodes.csv"
    write_episodes(path, results([True, False]), ABOUT)
    other = read_episodes(path)
    with pytest.raises(ValueError, match=r"lacks 2 of the 3 seeds \(first 12\), it has 10 to 11"):
        check_paired(other, ABOUT, range(11, 14))
    with pytest.raises(ValueError, match="has the split '', this one 'clamp'"):
        check_paired(other, {**ABOUT, "split": "clamp"}, [10])


@pytest.mark.parametrize(
    "change",
    [("success,", "won,"), ("vision,rti,eager,1,10,1", "vision,rti,eager,1,10,yes")],
)
def test_another_file_is_refused(tmp_path: Path, change: tuple[str, str]) -> None:
    path = tmp_path / "episodes.csv"
    write_episodes(path, results([True, False]), ABOUT)
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(ValueError, match=r"is not an episodes\.csv of `prise eval`"):
        read_episodes(path)


def test_a_file_of_two_evaluations_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "episodes.csv"
    write_episodes(path, results([True]), ABOUT)
    one = path.read_text()
    path.write_text(one + one.splitlines()[1] + "\n")
    with pytest.raises(ValueError, match="each seed once"):
        read_episodes(path)
    path.write_text(one.splitlines()[0] + "\n")
    with pytest.raises(ValueError, match="must hold episodes"):
        read_episodes(path)
