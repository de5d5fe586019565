"""Ratios of `prise bench engine` as a picture: how much of its limit each part reaches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from data.results import Row


def draw(rows: Sequence[Row], path: Path) -> Path:
    """Horizontal bars, one for each `limit_ratio`, into a PNG."""
    ratios = [row for row in rows if row.name == "limit_ratio"]
    figure = Figure(figsize=(8, 1.2 + 0.3 * len(ratios)), layout="constrained")
    axes = figure.subplots()
    labels = [
        f"{row.context['part']}, {row.context['denoiser']}, batch {row.context['batch_size']}"
        for row in ratios
    ]
    colours = ["C0" if row.context["binds"] == "compute" else "C1" for row in ratios]
    places = range(len(ratios))
    axes.barh(places, [row.value for row in ratios], color=colours)
    axes.set_yticks(places, labels)
    axes.invert_yaxis()
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xlim(0, max(1.05, *(row.value for row in ratios)))
    axes.set_xlabel("part of the limit reached (blue: compute binds, orange: memory)")
    for place, row in zip(places, ratios, strict=True):
        axes.text(row.value + 0.01, place, f"{row.value:.2f}", va="center", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
