"""The grid: which cells it has, that an episode is run once, and what its figures mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data.results import Row
from deploy.bench.grid.cells import Cell, Task, cells_of, tasks_of
from deploy.bench.grid.episodes import Episode, read_episodes, run_grid
from deploy.bench.grid.rows import grid_rows, reaction_ticks
from deploy.bench.grid.run import by_cell, check_cells
from deploy.commands.compose import compose
from envs.workers import SeedWorkers
from tests.tiny_policy import save_tiny_checkpoint

ENV = {"_target_": "envs.base.EnvFactory", "id": "tests.tiny_env:Tiny-v0", "kwargs": {}}
GRID: dict[str, Any] = {
    "tasks": {"tiny": {}},
    "only": None,
    "schemes": {
        "rti": {"controller": "rti"},
        "rti_low": {"controller": "rti", "start_level": 0.3},
        "cold_ddim": {"controller": "cold_ddim"},
    },
    "blocks": [
        {"schemes": ["rti", "rti_low"], "delay": [0, 2]},
        {"schemes": ["cold_ddim"], "exec_horizon": [1, 4], "nfe": [2], "delay": [0, 2]},
    ],
}


def test_a_block_is_the_product_of_its_lists_and_what_it_leaves_out_is_the_schemes() -> None:
    cells = cells_of(GRID)
    assert len(cells) == 2 * 2 + 2 * 2
    low = next(c for c in cells if c.scheme == "rti_low")
    assert (low.nfe, low.exec_horizon, low.controller["start_level"]) == (1, 1, 0.3)
    cold = next(c for c in cells if c.scheme == "cold_ddim" and c.exec_horizon == 4)
    assert cold.controller["num_steps"] == cold.nfe == 2


def test_a_cell_named_by_two_blocks_is_there_once() -> None:
    assert len(cells_of({**GRID, "blocks": GRID["blocks"] * 2})) == len(cells_of(GRID))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks": [{"schemes": ["nothing"]}]}, "'nothing' is not in the grid"),
        ({"blocks": [{"schemes": ["rti"], "nfes": [1]}]}, r"\['nfes'\]"),
        ({"schemes": {"rti": {"controller": "rti", "level": 1}}}, r"has no \['level'\]"),
    ],
)
def test_what_a_grid_does_not_know_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cells_of({**GRID, **change})


def test_a_task_without_a_checkpoint_is_told_how_to_get_one() -> None:
    with pytest.raises(ValueError, match=r"grid\.tasks\.pry\.checkpoint=PATH"):
        tasks_of(compose("bench", ["what=grid"])["grid"])


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Task]:
    path = save_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best")
    return {"tiny": Task("tiny", ENV, path)}


def test_a_chunk_too_short_for_horizon_and_delay_is_refused_before_the_first_episode(
    tasks: dict[str, Task],
) -> None:
    blocks = [{"schemes": ["cold_ddim"], "exec_horizon": [8], "nfe": [2], "delay": [2]}]
    with pytest.raises(ValueError, match="exceed the chunk of 8 actions"):
        check_cells(tasks, cells_of({**GRID, "blocks": blocks}))


@pytest.mark.slow
def test_an_interrupted_grid_goes_on_where_it_was(tasks: dict[str, Task], tmp_path: Path) -> None:
    cells, path = cells_of(GRID)[:3], tmp_path / "episodes.jsonl"
    first = run_grid(tasks, cells, range(2), path, 2, SeedWorkers)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(first) == 6
    # As a kill in the middle of a line leaves it; the first episode says who wrote it.
    marked = json.loads(lines[0]) | {"outcome": "kept"}
    path.write_text("\n".join([json.dumps(marked), *lines[1:3], lines[3][:40]]), encoding="utf-8")
    again = run_grid(tasks, cells, range(2), path, 1, SeedWorkers)
    assert [(e.cell, e.seed, e.nfe) for e in again] == [(e.cell, e.seed, e.nfe) for e in first]
    kept = [e for e in again if e.outcome == "kept"]
    assert [(e.cell, e.seed) for e in kept] == [(marked["cell"], marked["seed"])]
    assert len(read_episodes(path)) == 6
    rows = grid_rows(tasks, by_cell(cells, again), {"tiny": 10.0})
    assert {r.name for r in rows} >= {
        "success",
        "nfe_per_action",
        "tick_ms",
        "jerk_off_seam_rms",
        "distance_m",
    }


@pytest.mark.slow
def test_episodes_of_other_settings_are_run_anew(tasks: dict[str, Task], tmp_path: Path) -> None:
    path, cell = tmp_path / "episodes.jsonl", cells_of(GRID)[0]
    run_grid(tasks, [cell], [0], path, 1, SeedWorkers)
    other = Cell(**{**vars(cell), "controller": {**cell.controller, "start_level": 0.5}})
    run_grid(tasks, [other], [0], path, 1, SeedWorkers)
    assert len({e.digest for e in read_episodes(path)}) == 2


def episode(cell: Cell, seed: int, success: bool, actions: list[list[float]]) -> Episode:
    return Episode(cell.key, "x", seed, success, "", 10, 20, 5, [1.0] * 5, {}, {}, actions)


def cell(scheme: str, **axes: Any) -> Cell:
    given = {"task": "tiny", "exec_horizon": 1, "nfe": 1, "delay": 0, **axes}
    return Cell(scheme=scheme, controller={}, **given)


def row(rows: list[Row], name: str, **context: Any) -> Row:
    (found,) = [r for r in rows if r.name == name and context.items() <= r.context.items()]
    return found


def test_differences_are_paired_with_the_baseline_and_with_no_delay() -> None:
    rti, late, cold = cell("rti"), cell("rti", delay=2), cell("cold_ddpm", nfe=100)
    done = {
        c: [episode(c, seed, ok, []) for seed, ok in enumerate(outcomes)]
        for c, outcomes in (
            (rti, [True, True, True, False]),
            (late, [True, False, False, False]),
            (cold, [True, True, False, False]),
        )
    }
    rows = grid_rows({"tiny": Task("tiny", ENV, Path())}, done, {"tiny": 10.0})
    assert row(rows, "success_difference", delay=0, controller="rti").value == 0.25
    assert row(rows, "success_difference", delay=2, against="no_delay").value == -0.5
    assert row(rows, "nfe_per_action", controller="rti", delay=0).value == 2.0
    assert row(rows, "nfe_per_plan", controller="rti", delay=0).value == 4.0


def test_reaction_is_the_first_tick_at_63_percent_of_the_change() -> None:
    plain = [[0.0, 1.0]] * 12
    lagging = [[0.0, 1.0]] * 5 + [[0.0, 1.0 - 0.25 * min(i, 4)] for i in range(7)]
    assert reaction_ticks(lagging, plain, at=5) == 3
    assert reaction_ticks(plain, plain, at=5) is None
    assert reaction_ticks(plain[:4], plain, at=5) is None
