"""What a tick costs: milliseconds, network evaluations, deadlines; and the session over ROS 2."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data.results import Row
from deploy.report.figures import Arm, by_arm, named, percentiles
from deploy.report.html import element, escape, number, section, table

PARTS = {"encode": "encoder alone", "denoise": "denoiser alone, one evaluation"}


def cost_section(rows: Sequence[Row]) -> str:
    """p50, p95, p99 of a planning tick on a logarithmic scale, with evaluations a tick."""
    ticks = percentiles(rows, "tick_ms")
    if not ticks:
        return ""
    nfe = {arm: of_arm[0].value for arm, of_arm in by_arm(rows, "nfe_per_tick").items()}
    misses = {arm: of_arm[0] for arm, of_arm in by_arm(rows, "deadline_misses").items()}
    scale = _Scale([v for of_arm in ticks.values() for v in of_arm.values()])
    cells = [
        [
            escape(arm.title),
            scale.range(values),
            *(number(values[p]) if p in values else "" for p in (50, 95, 99)),
            number(nfe[arm]) if arm in nfe else "",
            _misses(misses.get(arm)),
        ]
        for arm, values in ticks.items()
    ]
    head = ["arm", scale.title, "p50 ms", "p95 ms", "p99 ms", "NFE / tick", "misses"]
    note = (
        "Ticks in which something was planned; a dot is the median, the bar ends at p99, the notch "
        f"is p95. NFE: network evaluations, mean over all ticks. {_conditions(rows)}"
    )
    return section("What a tick costs", table(head, cells, (2, 3, 4, 5, 6), note), _bench(rows))


def _misses(row: Row | None) -> str:
    if row is None:
        return "\N{EN DASH}"
    return f"{row.value:.0f}" + ("" if row.n is None else f" of {row.n}")


def _conditions(rows: Sequence[Row]) -> str:
    """On how many threads, beside how many others: as the rows say."""
    said = {}
    for arm, of_arm in by_arm(rows, "tick_ms").items():
        context = of_arm[0].context
        threads, workers = context.get("threads"), context.get("workers")
        text = "" if threads is None else f"{threads} torch thread{'' if threads == 1 else 's'}"
        if isinstance(workers, int) and workers > 1:
            text += f" in each of {workers} processes that run at the same time"
        if text:
            said[arm.way.split(" · ")[-1]] = text
    return " ".join(f"{escape(wire)}: {escape(text)}." for wire, text in said.items())


class _Scale:
    """A logarithmic scale across whole decades, as positions in percent."""

    def __init__(self, values: Sequence[float]) -> None:
        positive = [v for v in values if v > 0] or [1.0]
        self._low = math.floor(math.log10(min(positive)))
        self._high = max(math.ceil(math.log10(max(positive))), self._low + 1)

    @property
    def title(self) -> str:
        low, high = (f"{10.0**e:g}" for e in (self._low, self._high))
        return f"{low} to {high} ms, log scale"

    def range(self, values: Mapping[int, float]) -> str:
        """Bar from the median to the last percentile."""
        places = {p: self._at(v) for p, v in values.items()}
        start, end = min(places.values()), max(places.values())
        parts = [
            element("i", "", cls="decade", style=f"left:{self._at(10.0**e):.1f}%")
            for e in range(self._low + 1, self._high)
        ]
        style = f"left:{start:.1f}%;width:{max(end - start, 0.3):.1f}%"
        parts.append(element("i", "", cls="span", style=style))
        for p, kind in ((95, "notch"), (50, "dot")):
            if p in places:
                parts.append(element("i", "", cls=kind, style=f"left:{places[p]:.1f}%"))
        return element("div", "".join(parts), cls="range")

    def _at(self, value: float) -> float:
        whole = self._high - self._low
        return 100 * (math.log10(max(value, 10.0**self._low)) - self._low) / whole


def _bench(rows: Sequence[Row]) -> str:
    """The parts of a tick, alone, and the ratios measured with them."""
    cells = []
    for part, words in PARTS.items():
        values = {
            int(str(r.context["percentile"])): r.value
            for r in named(rows, "part_ms")
            if r.context.get("part") == part and "percentile" in r.context
        }
        if values:
            cells.append([words, *(number(values[p]) if p in values else "" for p in (50, 95, 99))])
    ratios = [
        [escape(words), number(row.value), _interval(row)]
        for name, words in RATIOS.items()
        for row in named(rows, name)
    ]
    return element(
        "div",
        table(["part of a tick, alone", "p50 ms", "p95 ms", "p99 ms"], cells, (1, 2, 3))
        + table(["ratio of medians, same process", "", "95 %"], ratios, (1, 2)),
        cls="pair",
    )


RATIOS = {
    "tick_overhead": "RTI tick / (encoder + denoiser)",
    "tick_speedup": "cold DDPM tick / RTI tick",
}


def _interval(row: Row) -> str:
    if row.low is None or row.high is None:
        return ""
    return f"{number(row.low)}\N{EN DASH}{number(row.high)}"


def wire_section(rows: Sequence[Row], session: Mapping[str, Any] | None) -> str:
    """Each episode of the session over ROS 2."""
    if not session:
        return ""
    cells = [
        [
            str(episode["seed"]),
            escape(episode["outcome"].replace("_", " ")),
            f"{episode['metrics'].get('duration_s', math.nan):.1f}",
            _percentile(episode["latency_s"], 50),
            _percentile(episode["latency_s"], 99),
            str(episode["deadline_misses"]),
            escape(_holds(episode["holds"])),
        ]
        for episode in session["episodes"]
    ]
    head = ["seed", "ended with", "seconds", "p50 ms", "p99 ms", "misses", "ticks on hold"]
    command = percentiles(rows, "command_ms")
    wire = [arm for arm in command if arm.wire == "ros2"]
    note = (
        "Latency: from an observation's stamp to the first command published from its plan. A miss "
        "is a plan that arrived later than a tick after its observation."
    )
    return section(
        "Over ROS 2",
        _summary(session, command[wire[0]] if wire else {}, wire),
        table(head, cells, (0, 2, 3, 4, 5), note),
    )


def _summary(session: Mapping[str, Any], command: Mapping[int, float], arms: Sequence[Arm]) -> str:
    episodes = session["episodes"]
    succeeded = sum(bool(episode["success"]) for episode in episodes)
    text = (
        f"A policy node and a simulated robot as two processes, in wall-clock time over the wire: "
        f"{len(episodes)} episodes in {session['minutes']:.1f} minutes, {succeeded} succeeded, "
        f"{session['deadline_misses']} deadlines missed."
    )
    if command and arms:
        text += f" Stamp to command p50 {number(command[50])} ms, p99 {number(command[99])} ms."
    return element("p", escape(text))


def _percentile(seconds: Sequence[float], percentile: float) -> str:
    return number(1000 * float(np.percentile(seconds, percentile))) if seconds else ""


def _holds(holds: Mapping[str, int]) -> str:
    counted = [f"{count} {reason.replace('_', ' ')}" for reason, count in holds.items() if count]
    return ", ".join(counted) or "none"
