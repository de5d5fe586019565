"""How often it worked, and how it ended where it did not."""

from __future__ import annotations

from collections.abc import Sequence

from data.results import Row
from deploy.report.figures import OBS, Arm, by_arm, named
from deploy.report.html import element, escape, percent, points, section, table

# Success is always the first colour; failures follow in the order in which they appear.
NUM_COLOURS = 10


def headline(rows: Sequence[Row]) -> str:
    """The first arm's success, in one sentence."""
    arms = by_arm(rows, "success")
    if not arms:
        return ""
    arm, (row, *_) = next(iter(arms.items()))
    count = "" if row.n is None else f"{round(row.value * row.n)} of {row.n} episodes"
    text = f"<b>{percent(row.value)}</b> success: {escape(arm.title)}, {count}{_between(row)}."
    return element("p", text, cls="headline")


def success_section(rows: Sequence[Row]) -> str:
    """A bar with its interval for each arm, and paired differences."""
    cells = [
        [
            f"<b>{escape(OBS.get(arm.obs, arm.obs))}</b>",
            escape(arm.way),
            _bar(row, arm),
            "" if row.n is None else f"{round(row.value * row.n)} / {row.n}",
            percent(row.value),
            _interval(row),
        ]
        for arm, of_arm in by_arm(rows, "success").items()
        for row in of_arm
    ]
    head = ["observes", "controller", "success", "episodes", "rate", "95 %"]
    note = "Whiskers and the last column: Wilson 95 % intervals."
    return section("Success", table(head, cells, (3, 4, 5), note), _differences(rows))


def _between(row: Row) -> str:
    return "" if row.low is None else f", 95 % interval {_interval(row)}"


def _interval(row: Row) -> str:
    if row.low is None or row.high is None:
        return ""
    return f"{100 * row.low:.0f}\N{EN DASH}{100 * row.high:.0f} %"


def _bar(row: Row, arm: Arm) -> str:
    style = f"b{list(OBS).index(arm.obs)}" if arm.obs in OBS else "b3"
    whisker = ""
    if row.low is not None and row.high is not None:
        place = f"left:{100 * row.low:.1f}%;width:{100 * (row.high - row.low):.1f}%"
        whisker = element("i", "", cls="whisker", style=place)
    fill = element("i", "", cls=f"fill {style}", style=f"width:{100 * row.value:.1f}%")
    return element("div", fill + whisker, cls="bar")


def _differences(rows: Sequence[Row]) -> str:
    cells = []
    for row in named(rows, "success_difference"):
        text = {key: str(row.context.get(key) or "") for key in ("obs", "controller", "wire")}
        one = Arm(**text)
        other = Arm(
            str(row.context["against_obs"]), str(row.context["against_controller"]), one.wire
        )
        interval = "" if row.low is None or row.high is None else _signed(row.low, row.high)
        cells.append([escape(one.title), escape(other.title), points(row.value), interval])
    head = ["success of", "against that of", "points", "95 %"]
    return table(
        head, cells, (2, 3), "Paired: the same seeds for both. Intervals after Newcombe 1998."
    )


def _signed(low: float, high: float) -> str:
    return f"{points(low)} to {points(high)}"


def outcome_section(rows: Sequence[Row]) -> str:
    """All episodes of an arm as one bar, divided by how they ended."""
    arms = by_arm(rows, "outcome")
    counted = [row for of_arm in arms.values() for row in of_arm]
    names = sorted({str(row.context["outcome"]) for row in counted})
    names.sort(key=lambda name: name != "success")
    colour = {name: f"o{min(i, NUM_COLOURS - 1)}" for i, name in enumerate(names)}
    if "success" not in names:
        colour = {name: f"o{min(i + 1, NUM_COLOURS - 1)}" for i, name in enumerate(names)}
    cells = [
        [escape(arm.title), _stack(of_arm, colour), _counts(of_arm)] for arm, of_arm in arms.items()
    ]
    legend = "".join(
        f'<span><i class="{colour[n]}"></i>{escape(n.replace("_", " "))}</span>' for n in names
    )
    body = table(["arm", "all episodes, by how they ended", "counts"], cells)
    return section("How episodes ended", body, element("p", legend, cls="legend") if body else "")


def _stack(rows: Sequence[Row], colour: dict[str, str]) -> str:
    parts = []
    for row in _sorted(rows):
        name = str(row.context["outcome"])
        style, words = f"width:{100 * row.value:.2f}%", f"{name.replace('_', ' ')}: {_count(row)}"
        parts.append(element("i", "", cls=colour[name], style=style, title=words))
    return element("div", "".join(parts), cls="stack")


def _counts(rows: Sequence[Row]) -> str:
    words = (f"{_count(r)} {str(r.context['outcome']).replace('_', ' ')}" for r in _sorted(rows))
    return escape(", ".join(words))


def _sorted(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row.context["outcome"] != "success", -row.value))


def _count(row: Row) -> str:
    return percent(row.value) if row.n is None else f"{round(row.value * row.n)}"
