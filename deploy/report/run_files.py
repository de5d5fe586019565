"""What a run left in its folder, read for the report; only `results.json` has to be there.

results.json             all rows
facts.json               config, versions, minutes, of a demo
collect.json             how the demonstrations were made
runs/NAME/metrics.jsonl  losses and seconds of training
ros2/session.json        episodes over ROS 2
episodes/index.json      episodes to show: for each NAME, NAME.json and NAME.mp4 beside it
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.results import Results, read_results

RESULTS, FACTS, COLLECT = "results.json", "facts.json", "collect.json"
RUNS, METRICS, SESSION = "runs", "metrics.jsonl", "ros2/session.json"
EPISODES, INDEX, REPORT = "episodes", "index.json", "report.html"


@dataclass(frozen=True)
class ShownEpisode:
    """An episode with its video and its force over time."""

    name: str
    about: Mapping[str, Any]
    trace: Mapping[str, Any]
    video: bytes


@dataclass(frozen=True)
class RunFiles:
    """All that the report looks at; what a run did not do is None or empty."""

    path: Path
    results: Results
    facts: Mapping[str, Any] | None
    collected: Mapping[str, Any] | None
    metrics: Mapping[str, list[dict[str, Any]]]
    session: Mapping[str, Any] | None
    episodes: list[ShownEpisode]


def read_run(path: Path) -> RunFiles:
    """The files of the run in `path`; raises FileNotFoundError or ValueError in one clear line."""
    if not (path / RESULTS).is_file():
        raise FileNotFoundError(
            f"{path} holds no {RESULTS}; give the folder that a command wrote its results into."
        )
    return RunFiles(
        path=path,
        results=read_results(path / RESULTS),
        facts=read_json(path / FACTS),
        collected=read_json(path / COLLECT),
        metrics={
            file.parent.name: rows
            for file in sorted((path / RUNS).glob(f"*/{METRICS}"))
            if (rows := read_rows(file))
        },
        session=read_json(path / SESSION),
        episodes=_episodes(path / EPISODES),
    )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file; a last line that is still being written is left out."""
    if not path.is_file():
        return []
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def write_json(path: Path, content: Any) -> None:
    """Write `content`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    beside.replace(path)


def read_json(path: Path) -> Any:
    """The content of a JSON file, None if there is none; ValueError if it is damaged."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable JSON: {error}; make it again.") from error


def _episodes(folder: Path) -> list[ShownEpisode]:
    shown = []
    for about in read_json(folder / INDEX) or []:
        name = about["name"]
        trace, video = read_json(folder / f"{name}.json"), folder / f"{name}.mp4"
        if trace is None or not video.is_file():
            raise FileNotFoundError(
                f"{folder / INDEX} names episode {name!r}, but {name}.json or {name}.mp4 is "
                "missing; run the demo again."
            )
        shown.append(ShownEpisode(name, about, trace, video.read_bytes()))
    return shown
