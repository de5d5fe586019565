"""Line plots as SVG that takes its colours from the page, and so follows light and dark mode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

WIDTH, HEIGHT = 460, 230
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 18, 38
MAX_POINTS = 900  # more than there are pixels


@dataclass(frozen=True)
class Series:
    """One line; `style` is the number of its colour in the page, `faint` draws it thin."""

    x: ArrayLike
    y: ArrayLike
    label: str = ""
    style: int = 0
    faint: bool = False


@dataclass(frozen=True)
class Marker:
    """A vertical line with a word at its top."""

    x: float
    label: str


@dataclass(frozen=True)
class Plot:
    """Axes with lines. With `follows` the page moves a cursor to the time of that video."""

    series: Sequence[Series]
    x_label: str
    y_label: str
    log_y: bool = False
    markers: Sequence[Marker] = field(default_factory=tuple)
    follows: str = ""


class _Axis:
    """Numbers to pixels, and where to put ticks."""

    def __init__(self, low: float, high: float, start: float, end: float, log: bool) -> None:
        self._map = math.log10 if log else float
        self.low, self.high, self.log = low, high if high > low else low + 1, log
        self._a, self._start = self._map(self.low), start
        self._scale = (end - start) / (self._map(self.high) - self._a)

    def __call__(self, value: float) -> float:
        return self._start + (self._map(value) - self._a) * self._scale

    def ticks(self) -> list[float]:
        if not self.log:
            return _round_ticks(self.low, self.high)
        if self.high < 3 * self.low:  # too little for powers of ten
            return _round_ticks(self.low, self.high)
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        few = (1,) if len(decades) > 3 else (1, 2, 5)
        return [m * 10.0**d for d in decades for m in few if self.low <= m * 10.0**d <= self.high]


def render(plot: Plot) -> str:
    """The plot as an `<svg>` with its legend."""
    x_values = np.concatenate([np.asarray(s.x, np.float64) for s in plot.series])
    y_values = np.concatenate([np.asarray(s.y, np.float64) for s in plot.series])
    if plot.log_y:
        y_values = y_values[y_values > 0]
    if not x_values.size or not y_values.size:
        return ""
    x = _Axis(float(x_values.min()), float(x_values.max()), LEFT, WIDTH - RIGHT, log=False)
    y = _Axis(*_padded(y_values, plot.log_y), HEIGHT - BOTTOM, TOP, log=plot.log_y)
    parts = [*_grid(x, y), *_labels(plot), *(_line(s, x, y) for s in plot.series)]
    parts += _markers(plot.markers, x)
    if plot.follows:
        parts.append(
            f'<line class="cursor" data-video="{escape(plot.follows)}" data-x0="{x(0):.2f}" '
            f'data-dx="{x(1) - x(0):.4f}" x1="{x(0):.1f}" x2="{x(0):.1f}" '
            f'y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        )
    name = escape(f"{plot.y_label} over {plot.x_label}")
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">'
    return f"<figure>{svg}{''.join(parts)}</svg>{_legend(plot.series)}</figure>"


def _padded(values: NDArray[np.float64], log: bool) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if log:
        return low / 1.15, high * 1.15
    pad = 0.06 * (high - low or 1.0)
    return low - pad, high + pad


def _round_ticks(low: float, high: float) -> list[float]:
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    first = math.ceil(low / step)
    return [i * step for i in range(first, math.floor(high / step) + 1)]


def _grid(x: _Axis, y: _Axis) -> list[str]:
    parts = []
    for value in y.ticks():
        at = y(value)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text class="ty" x="{LEFT - 6}" y="{at + 3.5:.1f}">{_short(value)}</text>'
        )
    for value in x.ticks():
        parts.append(
            f'<text class="tx" x="{x(value):.1f}" y="{HEIGHT - BOTTOM + 15}">{_short(value)}</text>'
        )
    base = HEIGHT - BOTTOM
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>')
    return parts


def _labels(plot: Plot) -> list[str]:
    middle = (LEFT + WIDTH - RIGHT) / 2
    return [
        f'<text class="tx" x="{middle}" y="{HEIGHT - 6}">{escape(plot.x_label)}</text>',
        f'<text class="title" x="2" y="10">{escape(plot.y_label)}</text>',
    ]


def _line(series: Series, x: _Axis, y: _Axis) -> str:
    xs, ys = np.asarray(series.x, np.float64), np.asarray(series.y, np.float64)
    keep = ys > 0 if y.log else np.ones(len(ys), bool)
    xs, ys = xs[keep], ys[keep]
    stride = max(1, len(xs) // MAX_POINTS)
    points = " ".join(
        f"{x(float(a)):.1f},{y(float(b)):.1f}"
        for a, b in zip(xs[::stride], ys[::stride], strict=True)
    )
    kind = " faint" if series.faint else ""
    return f'<polyline class="line c{series.style}{kind}" points="{points}"/>'


def _markers(markers: Sequence[Marker], x: _Axis) -> list[str]:
    """Labels next to their lines; one that would lie over its neighbour goes one line down."""
    parts, last = [], -math.inf
    row = 0
    for marker in sorted(markers, key=lambda m: m.x):
        at = x(marker.x)
        width = 5.6 * len(marker.label)
        row = row + 1 if at < last else 0
        left = at + width + 4 > WIDTH
        last = max(last, at + width + 8)
        anchor, shift = ("end", -3) if left else ("start", 3)
        parts.append(
            f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
            f'<text class="mark" text-anchor="{anchor}" x="{at + shift:.1f}" '
            f'y="{TOP + 9 + 12 * row}">{escape(marker.label)}</text>'
        )
    return parts


def _legend(series: Sequence[Series]) -> str:
    entries = [
        f'<span><i class="b{s.style}"></i>{escape(s.label)}</span>' for s in series if s.label
    ]
    return f"<figcaption>{''.join(entries)}</figcaption>" if entries else ""


def _short(value: float) -> str:
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"
    return text.replace("-", "\N{MINUS SIGN}")
