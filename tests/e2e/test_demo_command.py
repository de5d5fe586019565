"""The whole demo as a user runs it, with budgets of a few seconds."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.e2e
def test_whole_demo_survives_an_interrupt_and_is_instant_when_done(tmp_path: Path) -> None:
    import rclpy  # noqa: F401  without it the fourth step cannot be; this says so at once

    small = ["denoiser.width=32", "denoiser.num_layers=1", "train.log_every=2"]
    command = [
        *(sys.executable, "-m", "prise", "demo", f"out={tmp_path}/demo"),
        *("collect.episodes=3", "env.kwargs.image_size=32", "train.steps=20", "bench.rounds=2"),
        *("train.batch_size=16", "evaluate.episodes=1", "evaluate.workers=1", "ros2.episodes=1"),
        "train.overrides=[" + ",".join(f"'{s}'" for s in small) + "]",
        "evaluate.controllers.vision_force=[rti,cold_ddim]",
    ]
    begun = subprocess.Popen(
        command,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        # A background job of a script starts with SIGINT ignored, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    metrics = tmp_path / "demo" / "runs" / "vision" / "metrics.jsonl"
    while begun.poll() is None and not (metrics.is_file() and metrics.read_text()):
        time.sleep(0.05)
    begun.send_signal(signal.SIGINT)
    _, said = begun.communicate()
    assert begun.returncode == 130, said
    assert (tmp_path / "demo" / "runs" / "vision" / "last" / "manifest.json").is_file()

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "done before: collect" in done.stdout
    rows = json.loads((tmp_path / "demo" / "results.json").read_text())["rows"]
    found = {(r["name"], r.get("obs"), r.get("controller"), r.get("wire")) for r in rows}
    assert ("success", "vision_force", "rti", "lockstep") in found
    assert ("success", "vision_force", "cold_ddim", "lockstep") in found
    assert ("success", "vision", "rti", "lockstep") in found
    assert ("success", "vision_force", "rti", "ros2") in found
    names = {row["name"] for row in rows}
    wanted = {"tick_ms", "nfe_per_tick", "deadline_misses", "minutes", "success_difference"}
    assert wanted <= names
    assert {row.get("step") for row in rows if row["name"] == "minutes"} >= {"all", "train", "ros2"}
    html = (tmp_path / "demo" / "report.html").read_text()
    assert html.count("<video") >= 1

    started = time.monotonic()
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert again.stdout.startswith("all steps were done before")
    assert time.monotonic() - started < 30  # nothing but imports and the config, on a busy machine
