"""How it was made: data, training, machine, commands, and what to keep in mind."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.results import Row
from deploy.report.figures import OBS, named
from deploy.report.html import element, escape, number, section, table
from deploy.report.plots import Plot, Series, render
from deploy.report.run_files import RunFiles

SMOOTH = 15  # rows of the log


def data_section(collected: Mapping[str, Any] | None) -> str:
    """Episodes, seeds, duration and speed of the demonstrations."""
    if not collected:
        return ""
    minutes = collected["sim_seconds"] / 60
    text = (
        f"{collected['episodes']} demonstrations of a scripted expert, {collected['steps']} ticks "
        f"or {minutes:.1f} minutes of robot time, seeds {collected['seed_first']} to "
        f"{collected['seed_last']}. Collected at {collected['realtime_factor']:.0f} times real "
        f"time by {collected['workers']} processes with cameras of {collected['image_size']} "
        f"pixels; the expert failed in {len(collected['failed_seeds'])} episodes, which are left "
        "out."
    )
    return section("Demonstrations", element("p", escape(text)))


def training_section(metrics: Mapping[str, list[dict[str, Any]]]) -> str:
    """Loss curves, and where the time of a step went."""
    if not metrics:
        return ""
    series, shares, parts = [], [], []
    for name, rows in sorted(metrics.items(), key=lambda item: _place(item[0])):
        style = _place(name)
        losses = [row for row in rows if "loss" in row]
        steps = np.array([row["step"] for row in losses], np.float64)
        loss = np.array([row["loss"] for row in losses], np.float64)
        series += [
            Series(steps, loss, "", style, faint=True),
            Series(steps, smoothed(loss), OBS.get(name, name), style),
        ]
        shares.append(_shares(OBS.get(name, name), losses))
    parts = [part for part in STEP_PARTS if any(part in share for share in shares)]
    cells = [
        [escape(str(share["name"])), *(number(float(share.get(part, 0.0))) for part in parts)]
        for share in shares
    ]
    note = "Mean milliseconds of a step while all policies train at the same time, one thread each."
    return section(
        "Training",
        element(
            "div",
            render(Plot(series, "step", "loss (mean squared error)", log_y=True))
            + table(["ms a step", *parts], cells, range(1, len(parts) + 1), note),
            cls="pair",
        ),
    )


def _place(name: str) -> int:
    """Number of a policy's colour."""
    return list(OBS).index(name) if name in OBS else len(OBS)


STEP_PARTS = ("load", "copy", "forward", "backward", "optimizer", "ema", "log")


def _shares(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, str | float]:
    timed = [row["timing"] for row in rows if "timing" in row]
    means = {part: 1000 * float(np.mean([t.get(part, 0) for t in timed])) for part in STEP_PARTS}
    return {"name": name, **(means if timed else {})}


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last `SMOOTH` values, or as many as there are."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - SMOOTH)
    mean: NDArray[np.float64] = (sums[ends] - sums[starts]) / (ends - starts)
    return mean


def making_section(run: RunFiles) -> str:
    """Minutes of each step, machine, versions, and the commands that repeat it."""
    facts = run.facts or {}
    steps = [
        [escape(str(row.context.get("step", "all"))), f"{row.value:.1f}"]
        for row in named(run.results.rows, "minutes")
    ]
    machine = run.results.machine
    about = [["processor", str(machine.get("cpu", ""))], ["cores", str(machine.get("cores", ""))]]
    about += [["prise", run.results.version]]
    about += [[name, str(version)] for name, version in facts.get("versions", {}).items()]
    about += [[name, str(seeds)] for name, seeds in facts.get("seeds", {}).items()]
    cells = [[escape(name), escape(value)] for name, value in about]
    tables = table(["step", "minutes"], steps, (1,)) + table(["machine and versions", ""], cells)
    commands = facts.get("commands", [run.results.command])
    lines = "\n".join(
        command if isinstance(command, str) else shlex.join(command) for command in commands
    )
    return section(
        "How to make this again",
        element("pre", element("code", escape(lines))),
        _settings(facts.get("config")),
        element("div", tables, cls="pair"),
    )


def _settings(config: Any) -> str:
    """All settings, folded away."""
    if not config:
        return ""
    text = element("pre", element("code", escape(json.dumps(config, indent=1))))
    return element("details", element("summary", "All settings") + text)


def notes_section(run: RunFiles) -> str:
    """What limits the figures, told by the figures themselves."""
    rows, notes = run.results.rows, []
    if run.metrics:
        trained = f"{len(run.metrics)} {'policy' if len(run.metrics) == 1 else 'policies'}"
        notes.append(
            f"{trained} trained, one run each: the intervals cover the choice of episodes, not "
            "that of the training seed."
        )
    counts = sorted({row.n for row in named(rows, "success") if row.n is not None})
    if counts:
        row = min((r for r in named(rows, "success") if r.n), key=lambda r: r.n or 0)
        if row.low is not None and row.high is not None:
            notes.append(
                f"Smallest number of episodes of an arm: {counts[0]}; its interval is "
                f"{100 * (row.high - row.low):.0f} points wide."
            )
    splits = sorted({str(row.context["split"]) for row in rows if row.context.get("split")})
    if splits:
        notes.append(f"Episodes are drawn from the split {', '.join(splits)} of the task.")
    if any(row.context.get("workers", 1) != 1 for row in named(rows, "tick_ms")):
        notes.append(
            "Lock-step episodes ran in several processes at once, so their tick times include each "
            "other; compare controllers by the rows of the bench, where they have one."
        )
    if any(row.context.get("wire") == "ros2" for row in rows):
        notes.append("The robot behind ROS 2 is a simulated one, on this machine.")
    items = "".join(element("li", escape(note)) for note in notes)
    return section("Keep in mind", element("ul", items)) if items else ""


def minutes_of(rows: Sequence[Row]) -> float | None:
    """Minutes of the whole."""
    whole = [row.value for row in named(rows, "minutes") if row.context.get("step") == "all"]
    return whole[0] if whole else None
