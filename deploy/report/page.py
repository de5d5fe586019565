"""`prise report RUN`: the files of a run as one HTML page that needs nothing beside it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from deploy.report.cost_sections import cost_section, wire_section
from deploy.report.episode_section import episode_section
from deploy.report.html import element, escape
from deploy.report.making_sections import (
    data_section,
    making_section,
    minutes_of,
    notes_section,
    training_section,
)
from deploy.report.outcome_sections import headline, outcome_section, success_section
from deploy.report.run_files import REPORT, RunFiles, read_run

ASSETS = Path(__file__).parent / "assets"


def run(config: dict[str, Any]) -> int:
    """Write the report of the run in `run`."""
    sys.stdout.write(f"{write_report(Path(config['run']))}\n")
    return 0


def write_report(path: Path) -> Path:
    """Write `report.html` into the run's folder, whole or not at all, and return where it is."""
    text = page(read_run(path))
    beside = path / f".{REPORT}.new"
    beside.write_text(text, encoding="utf-8")
    return beside.replace(path / REPORT).absolute()


def page(run: RunFiles) -> str:
    """The whole page."""
    rows = run.results.rows
    style = (ASSETS / "report.css").read_text(encoding="utf-8")
    script = (ASSETS / "report.js").read_text(encoding="utf-8")
    body = "".join(
        (
            element("header", _title(run) + headline(rows)),
            success_section(rows),
            outcome_section(rows),
            episode_section(run.episodes),
            cost_section(rows),
            wire_section(rows, run.session),
            training_section(run.metrics),
            data_section(run.collected),
            making_section(run),
            notes_section(run),
        )
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>Prise · {escape(run.results.command)}</title><style>{style}</style></head>"
        f"<body><main>{body}</main><script>{script}</script></body></html>\n"
    )


def _title(run: RunFiles) -> str:
    about = [f"prise {run.results.command}", str(run.results.machine.get("cpu", ""))]
    about.append(f"{run.results.machine.get('cores', '?')} cores")
    whole = minutes_of(run.results.rows)
    if whole is not None:
        about.append(f"{whole:.1f} minutes")
    words = " · ".join(escape(part) for part in about if part)
    return element("h1", "Prise") + element("p", words, cls="about")
