"""`episodes.csv`: one row an episode of an evaluation, and the difference to another one's.

task, split, obs, controller, backend, delay    the arm, the same in all rows
seed, success (1 or 0), outcome, ticks          of the episode
nfe_per_tick, tick_ms_mean                      over all ticks; over those in which it planned
...                                             the task's metrics
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.results import Row, paired_difference, write_whole
from envs.evaluate import EpisodeResult

EPISODES_CSV = "episodes.csv"
SAME = ("task", "split")  # else a seed is another episode
ARM = ("obs", "controller", "backend", "delay")
EPISODE = ("seed", "success", "outcome", "ticks", "nfe_per_tick", "tick_ms_mean")


@dataclass(frozen=True)
class Episodes:
    """What is compared: the arm, as text, and success by seed."""

    path: Path
    about: dict[str, str]
    success: dict[int, bool]


def write_episodes(
    path: Path, results: Sequence[EpisodeResult], context: Mapping[str, Any]
) -> None:
    """Write the episodes of one arm, whole or not at all."""
    about = {key: _text(context.get(key)) for key in (*SAME, *ARM)}
    metrics = [name for result in results for name in result.metrics]
    columns = dict.fromkeys((*about, *EPISODE, *metrics))
    text = io.StringIO()
    table = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    table.writeheader()
    # Metrics first: one that has the name of another column must not replace it.
    table.writerows({**result.metrics, **about, **_episode(result)} for result in results)
    write_whole(path, text.getvalue())


def read_episodes(path: Path) -> Episodes:
    """The `episodes.csv` at `path`, or in the folder `path`; ValueError if it is something else."""
    path = path / EPISODES_CSV if path.is_dir() else path
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        about = [{key: row[key] for key in (*SAME, *ARM)} for row in rows]
        success = {int(row["seed"]): {"1": True, "0": False}[row["success"]] for row in rows}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not an {EPISODES_CSV} of `prise eval`: {error!r} in one of its rows."
        ) from error
    if not rows or len(success) < len(rows) or about.count(about[0]) < len(rows):
        raise ValueError(f"{path} must hold episodes of one evaluation, each seed once.")
    return Episodes(path, about[0], success)


def check_paired(other: Episodes, context: Mapping[str, Any], seeds: Sequence[int]) -> None:
    """Raise ValueError unless `other` holds the same episodes: task, split and all `seeds`."""
    for key in SAME:
        if other.about[key] != (ours := _text(context.get(key))):
            raise ValueError(
                f"{other.path} has the {key} {other.about[key]!r}, this one {ours!r}: the same "
                "seed is another episode there."
            )
    if missing := [seed for seed in seeds if seed not in other.success]:
        raise ValueError(
            f"{other.path} lacks {len(missing)} of the {len(seeds)} seeds (first {missing[0]}), it "
            f"has {min(other.success)} to {max(other.success)}; evaluate the same with seed0=... "
            "episodes=..."
        )


def difference_row(
    results: Sequence[EpisodeResult], other: Episodes, context: Mapping[str, Any]
) -> Row:
    """Success minus the other's on the same seeds, with Newcombe's paired interval."""
    ours = [result.success for result in results]
    theirs = [other.success[result.seed] for result in results]
    against = {f"against_{key}": other.about[key] for key in ARM}
    return Row(
        "success_difference",
        *paired_difference(ours, theirs),
        n=len(ours),
        context={**context, **against},
    )


def _episode(result: EpisodeResult) -> dict[str, Any]:
    stats = {name: np.asarray(values) for name, values in result.agent_stats.items()}
    planned = stats["tick_s"][stats["is_plan"] > 0]  # [s]
    return {
        "seed": result.seed,
        "success": int(result.success),
        "outcome": result.outcome,
        "ticks": result.ticks,
        "nfe_per_tick": round(float(stats["nfe"].mean()), 6),
        "tick_ms_mean": round(1000 * float(planned.mean()), 6) if planned.size else "",
    }


def _text(value: Any) -> str:
    return "" if value is None else str(value)
