"""A session's figures as rows of `results.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data.results import Row, success_row
from deploy.ros2.session import SessionResult, WireEpisode

PERCENTILES = (50, 95, 99)


def session_rows(result: SessionResult, context: Mapping[str, Any]) -> list[Row]:
    """Success, tick_ms (controller), command_ms (stamp to command), NFE, missed deadlines."""
    context = {**context, "wire": "ros2"}
    nfe = _joined(result.episodes, "nfe")
    planned = 1000 * _joined(result.episodes, "update_s")[nfe > 0]  # [ms]
    commanded = 1000 * _joined(result.episodes, "latency_s")
    lag = max(episode.lag_ms_max for episode in result.episodes)
    return [
        success_row("success", result.successes, context=context),
        Row("nfe_per_tick", float(nfe.mean()), n=nfe.size, context=context),
        *_percentiles("tick_ms", planned, context),
        *_percentiles("command_ms", commanded, context),
        Row("deadline_misses", result.deadline_misses, n=commanded.size, context=context),
        Row("sim_lag_ms_max", lag, n=len(result.episodes), unit="ms", context=context),
    ]


def _percentiles(
    name: str, values: np.ndarray[Any, np.dtype[np.float64]], context: Mapping[str, Any]
) -> list[Row]:
    return [
        Row(
            name,
            float(np.percentile(values, percentile)),
            n=values.size,
            unit="ms",
            context={**context, "percentile": percentile},
        )
        for percentile in (PERCENTILES if values.size else ())
    ]


def _joined(episodes: Sequence[WireEpisode], name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.concatenate([np.asarray(getattr(e, name), np.float64) for e in episodes])
