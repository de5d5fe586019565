"""Result files, intervals and the table."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from data.results import (
    Row,
    format_table,
    machine_info,
    paired_difference,
    print_table,
    read_results,
    success_row,
    wilson,
    write_results,
)

ROWS = [
    Row("success", 0.91, 0.84, 0.95, 100, context={"controller": "rti", "nfe": 2, "delay": 0}),
    Row("latency_p95", 1.5, unit="ms", context={"controller": "cold", "nfe": 10, "delay": 0}),
]


def test_a_file_holds_flat_rows_and_their_context(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.json"
    written = write_results(path, "eval", ROWS, range(3))
    raw = json.loads(path.read_text())
    assert raw.keys() == {"command", "version", "machine", "seeds", "rows"}
    assert raw["machine"].keys() == {"cpu", "cores", "threads"}
    assert raw["seeds"] == [0, 1, 2]
    assert raw["rows"][0] == {
        "name": "success",
        "controller": "rti",
        "nfe": 2,
        "delay": 0,
        "value": 0.91,
        "low": 0.84,
        "high": 0.95,
        "n": 100,
        "unit": "",
    }
    assert read_results(path) == written


def test_a_failed_write_leaves_the_old_file_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.json"
    write_results(path, "eval", ROWS, [0])
    old = path.read_text()

    def fail(self: Path, target: os.PathLike[str]) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_results(path, "bench", ROWS, [1])
    assert path.read_text() == old
    assert list(tmp_path.iterdir()) == [path]


def test_numpy_numbers_are_written_as_numbers(tmp_path: Path) -> None:
    row = success_row("success", np.array([True, False]), context={"task": "pry"})
    write_results(tmp_path / "r.json", "eval", [row], np.arange(2))
    assert read_results(tmp_path / "r.json").rows == [row]
    assert row.value == 0.5


def test_a_number_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"success.*nan"):
        Row("success", float("nan"))


def test_context_cannot_hide_a_figure() -> None:
    with pytest.raises(ValueError, match="value"):
        Row("success", 1.0, context={"value": 2})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rows": [1]}', "{"])
def test_what_is_no_results_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"r\.json is not a results file"):
        read_results(path)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(k: int, n: int, low: float, high: float) -> None:
    assert wilson(k, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_contains_the_rate_and_stays_within_zero_and_one() -> None:
    for n in (1, 7, 100):
        for k in range(n + 1):
            low, high = wilson(k, n)
            assert 0 <= low <= k / n <= high <= 1


@pytest.mark.parametrize(("k", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="wilson"):
        wilson(k, n)


def pairs(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[bool], list[bool]]:
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


@pytest.mark.parametrize("index", range(4))
def test_paired_difference_without_correlation_joins_the_wilson_intervals(index: int) -> None:
    # Where the pairs show no correlation the interval is the square-and-add one of Newcombe.
    both, only_a, only_b, neither = [(4, 6, 6, 9), (10, 10, 10, 10), (20, 10, 10, 5), (9, 0, 0, 0)][
        index
    ]
    a, b = pairs(both, only_a, only_b, neither)
    n = len(a)
    (la, ua), (lb, ub) = wilson(sum(a), n), wilson(sum(b), n)
    p, q = sum(a) / n, sum(b) / n
    difference, low, high = paired_difference(a, b)
    assert difference == pytest.approx(p - q)
    assert low == pytest.approx(difference - np.hypot(p - la, ub - q))
    assert high == pytest.approx(difference + np.hypot(ua - p, q - lb))


def test_paired_difference_narrows_with_the_correlation_of_the_pairs() -> None:
    # phi = (20 * 16 - 12 * 2 - 25) / sqrt(32 * 18 * 22 * 28), n = 50
    a, b = pairs(20, 12, 2, 16)
    (la, ua), (lb, ub) = wilson(32, 50), wilson(22, 50)
    phi = 271 / np.sqrt(354816)
    down = (0.64 - la) ** 2 - 2 * phi * (0.64 - la) * (ub - 0.44) + (ub - 0.44) ** 2
    up = (ua - 0.64) ** 2 - 2 * phi * (ua - 0.64) * (0.44 - lb) + (0.44 - lb) ** 2
    wanted = (0.2, 0.2 - np.sqrt(down), 0.2 + np.sqrt(up))
    assert paired_difference(a, b) == pytest.approx(wanted)
    assert wanted == pytest.approx((0.2, 0.0562, 0.3292), abs=5e-5)


def test_paired_difference_changes_sign_with_the_order() -> None:
    a, b = pairs(30, 8, 3, 9)
    difference, low, high = paired_difference(a, b)
    assert paired_difference(b, a) == pytest.approx((-difference, -high, -low))


def test_paired_intervals_cover_the_true_difference() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        skill = rng.random(60)  # what both share: the seed is easy or hard
        a, b = rng.random(60) < 0.2 + 0.7 * skill, rng.random(60) < 0.1 + 0.7 * skill
        _, low, high = paired_difference(a, b)
        covered += low <= 0.1 <= high
    assert covered / 400 > 0.92


def test_paired_outcomes_must_be_of_the_same_seeds() -> None:
    with pytest.raises(ValueError, match="two equal lists"):
        paired_difference([True], [True, False])


def test_the_table_aligns_and_says_shared_context_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = format_table(ROWS).splitlines()
    assert lines[0] == "delay 0"
    assert lines[1].split() == ["name", "controller", "nfe", "value", "95", "%", "n", "unit"]
    assert lines[3].split() == ["success", "rti", "2", "0.91", "0.84", "..", "0.95", "100"]
    assert lines[3].index("0.91") == lines[4].index("1.5")
    print_table(ROWS)
    assert capsys.readouterr().out.splitlines() == lines


def test_an_empty_table_is_no_error() -> None:
    assert format_table([]).strip() == ""


def test_the_machine_has_a_name_and_cores() -> None:
    info = machine_info()
    assert info["cpu"]
    assert info["cores"] >= 1
    assert info["threads"] >= 1
