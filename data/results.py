"""Figures with their context and uncertainty: `results.json`, intervals and the console table."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution

Context = Mapping[str, str | int | float | bool | None]
_RESERVED = ("name", "value", "low", "high", "n", "unit")


@dataclass(frozen=True)
class Row:
    """One figure: what was measured, its value, 95 % interval, count, unit and context."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    unit: str = ""
    context: Context = field(default_factory=dict)

    def __post_init__(self) -> None:
        if clash := sorted(set(self.context) & set(_RESERVED)):
            raise ValueError(f"row {self.name!r}: context must not use the names {clash}.")
        for key in ("value", "low", "high"):
            number = getattr(self, key)
            if number is None and key != "value":
                continue
            if not math.isfinite(number):
                raise ValueError(f"row {self.name!r}: {key} is {number}; leave such a row out.")
            object.__setattr__(self, key, float(number))
        if self.n is not None:
            object.__setattr__(self, "n", int(self.n))

    def to_dict(self) -> dict[str, Any]:
        """The row, flat, as it stands in the file."""
        figure = {"value": self.value, "low": self.low, "high": self.high, "n": self.n}
        return {"name": self.name, **self.context, **figure, "unit": self.unit}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Row:
        """Inverse of `to_dict`."""
        figure = {key: raw[key] for key in _RESERVED if key in raw}
        return cls(**figure, context={k: v for k, v in raw.items() if k not in _RESERVED})


@dataclass(frozen=True)
class Results:
    """The content of one `results.json`."""

    command: str
    version: str
    machine: dict[str, Any]
    seeds: list[int]
    rows: list[Row]


def success_row(
    name: str, outcomes: ArrayLike, *, unit: str = "", context: Context | None = None
) -> Row:
    """Row with the rate of True in `outcomes` and its Wilson interval."""
    outcomes = np.asarray(outcomes, dtype=bool)
    low, high = wilson(int(outcomes.sum()), outcomes.size)
    return Row(name, float(outcomes.mean()), low, high, outcomes.size, unit, context or {})


def write_results(
    path: str | os.PathLike[str], command: str, rows: Sequence[Row], seeds: Iterable[int]
) -> Results:
    """Write `results.json` at `path`, whole or not at all, and return what was written."""
    results = Results(command, _version(), machine_info(), [int(s) for s in seeds], list(rows))
    content = vars(results) | {"rows": [row.to_dict() for row in rows]}
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_whole(Path(path), text)
    return results


def write_whole(path: Path, text: str) -> None:
    """Write `text` at `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_results(path: str | os.PathLike[str]) -> Results:
    """Read what `write_results` wrote; ValueError if the file is something else."""
    try:
        raw = json.loads(Path(path).read_text(encoding="utf-8"))
        rows = [Row.from_dict(row) for row in raw["rows"]]
        return Results(raw["command"], raw["version"], raw["machine"], raw["seeds"], rows)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a results file: {error!r}.") from error


def machine_info() -> dict[str, Any]:
    """CPU name, cores this process may use, and threads that the numerics use."""
    cores = len(os.sched_getaffinity(0))
    # Only a torch that runs already is asked: reading a result must not import it.
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else int(os.environ.get("OMP_NUM_THREADS") or cores)
    return {"cpu": _cpu_name(), "cores": cores, "threads": threads}


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version() -> str:
    try:
        return metadata.version("prise")
    except metadata.PackageNotFoundError:
        return "not installed"


def wilson(k: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson 1927 score interval of `k` successes in `n` trials."""
    if not 0 <= k <= n or n < 1:
        raise ValueError(f"wilson needs 0 <= k <= n and n >= 1, got k={k}, n={n}.")
    p = k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # Exact at the ends, where rounding would leave the value outside of its own interval.
    return (0.0 if k == 0 else centre - half), (1.0 if k == n else centre + half)


def paired_difference(a: ArrayLike, b: ArrayLike, z: float = Z95) -> tuple[float, float, float]:
    """Success rate of `a` minus that of `b` on the same seeds, with its interval.

    Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions
    based on paired data", Statistics in Medicine 17, method 10: Wilson intervals of both rates,
    joined with the correlation phi of the pairs.
    """
    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if a.ndim != 1 or a.shape != b.shape or not a.size:
        raise ValueError(f"paired outcomes must be two equal lists, got {a.shape} and {b.shape}.")
    n = a.size
    both, only_a = int((a & b).sum()), int((a & ~b).sum())
    only_b, neither = int((~a & b).sum()), int((~a & ~b).sum())
    p, q = (both + only_a) / n, (both + only_b) / n
    (low_p, high_p), (low_q, high_q) = wilson(int(a.sum()), n, z), wilson(int(b.sum()), n, z)
    phi = _phi(both, only_a, only_b, neither)
    down = (p - low_p) ** 2 - 2 * phi * (p - low_p) * (high_q - q) + (high_q - q) ** 2
    up = (high_p - p) ** 2 - 2 * phi * (high_p - p) * (q - low_q) + (q - low_q) ** 2
    difference = (only_a - only_b) / n
    return difference, difference - math.sqrt(max(down, 0)), difference + math.sqrt(max(up, 0))


def _phi(both: int, only_a: int, only_b: int, neither: int) -> float:
    """Correlation of the pairs, with Newcombe's correction where it is positive."""
    product = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    if product == 0:
        return 0.0
    covariance: float = both * neither - only_a * only_b
    if covariance > 0:
        covariance = max(covariance - (both + only_a + only_b + neither) / 2, 0.0)
    return covariance / math.sqrt(product)


def format_table(rows: Sequence[Row]) -> str:
    """Rows as aligned text; context that is the same in all rows is left to the heading."""
    keys = list(dict.fromkeys(key for row in rows for key in row.context))
    shared = {k for k in keys if len(rows) > 1 and len({r.context.get(k) for r in rows}) == 1}
    columns = [key for key in keys if key not in shared]
    table = [["name", *columns, "value", "95 %", "n", "unit"]]
    for row in rows:
        between = "" if row.low is None or row.high is None else f"{row.low:.3g} .. {row.high:.3g}"
        context = ["" if (v := row.context.get(key)) is None else str(v) for key in columns]
        count = "" if row.n is None else str(row.n)
        table.append([row.name, *context, f"{row.value:.4g}", between, count, row.unit])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    used = [i for i in range(len(widths)) if any(line[i] for line in table[1:])]
    lines = ["  ".join(line[i].ljust(widths[i]) for i in used).rstrip() for line in table]
    lines.insert(1, "  ".join("-" * widths[i] for i in used))
    if shared:
        lines.insert(0, ", ".join(f"{k} {rows[0].context[k]}" for k in keys if k in shared))
    return "\n".join(lines)


def print_table(rows: Sequence[Row]) -> None:
    """Print `format_table(rows)`; for commands."""
    print(format_table(rows))  # noqa: T201  a command's output, asked for by its name
