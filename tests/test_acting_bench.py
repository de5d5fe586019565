"""Ticks per engine, as ratios within one run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import prise
from data.results import read_results
from deploy.bench.acting import load_engines
from policy.backends.onnxruntime import OnnxRuntime
from policy.export import export_policy
from tests.tiny_env import TINY_SPEC
from tests.tiny_policy import save_tiny_checkpoint
from tests.tiny_store import write_store

pytestmark = pytest.mark.apart


@pytest.mark.slow
def test_command_measures_torch_and_every_export(tmp_path: Path) -> None:
    demos = write_store(tmp_path / "demos.zarr", [20, 20], TINY_SPEC).path
    checkpoint = save_tiny_checkpoint(tmp_path / "last")
    export_policy(checkpoint, OnnxRuntime())
    arguments = [f"checkpoint={checkpoint}", f"dataset.path={demos}", "ticks=20"]
    assert prise.main(["bench", "acting", *arguments, f"out={tmp_path}"]) == 0
    rows = read_results(tmp_path / "results.json").rows
    for name in ("tick_jitter", "tick_overhead", "limit_ratio"):
        values = {row.context["backend"]: row.value for row in rows if row.name == name}
        assert values.keys() == {"eager", "onnxruntime"}
        assert min(values.values()) > 0
    jitter = next(row for row in rows if row.name == "tick_jitter")
    assert jitter.n == 20
    assert jitter.value >= 1


@pytest.mark.slow
def test_pinned_engines_are_measured_beside_free_ones(tmp_path: Path) -> None:
    demos = write_store(tmp_path / "demos.zarr", [20, 20], TINY_SPEC).path
    checkpoint = save_tiny_checkpoint(tmp_path / "last")
    before = os.sched_getaffinity(0)
    core = min(before)
    arguments = [f"checkpoint={checkpoint}", f"dataset.path={demos}", "ticks=20", f"pin=[{core}]"]
    assert prise.main(["bench", "acting", *arguments, f"out={tmp_path}"]) == 0
    rows = [r for r in read_results(tmp_path / "results.json").rows if r.name == "tick_jitter"]
    assert [row.context.get("pin") for row in rows] == [None, str(core)]
    assert os.sched_getaffinity(0) == before


def test_what_cannot_be_measured_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = save_tiny_checkpoint(tmp_path / "last")
    demos = write_store(tmp_path / "demos.zarr", [20, 20], TINY_SPEC).path
    assert prise.main(["bench", "acting"]) == 2
    arguments = ["bench", "acting", f"checkpoint={checkpoint}", f"dataset.path={demos}"]
    assert prise.main([*arguments, "ticks=0"]) == 2
    assert prise.main([*arguments, "controller=cold_ddim"]) == 2
    errors = capsys.readouterr().err
    assert "add checkpoint=PATH" in errors
    assert "ticks must be at least 1, got 0" in errors
    assert "use controller=rti" in errors
    with pytest.raises(ValueError, match=r"backends \['abacus'\] are unknown; known: aot"):
        load_engines(checkpoint, ["abacus"], 1)
