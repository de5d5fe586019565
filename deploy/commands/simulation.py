"""A policy in simulation: the environment that fits it, and the figures of its episodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.build import build
from data.results import Row, success_row
from data.spec import DataSpec
from envs.base import EnvFactory, data_spec
from envs.evaluate import EpisodeResult

PERCENTILES = (50, 95, 99)
NO_IMAGE = 1  # [pixels] the size where there is no camera


def matching_env(env: Mapping[str, Any], spec: DataSpec) -> EnvFactory:
    """The environment of the config; an image size or cameras that are null come from `spec`."""
    kwargs = dict(env["kwargs"])
    images = {key: obs for key, obs in spec.obs.items() if obs.modality == "image"}
    if "cameras" in kwargs and kwargs["cameras"] is None:
        kwargs["cameras"] = [key.removesuffix("_rgb") for key in images]
    if "image_size" in kwargs and kwargs["image_size"] is None:
        kwargs["image_size"] = max((obs.shape[0] for obs in images.values()), default=NO_IMAGE)
    factory: EnvFactory = build({**env, "kwargs": kwargs})
    return factory


def check_fits(make_env: EnvFactory, spec: DataSpec) -> None:
    """Raise SpecError unless the environment provides what a policy of `spec` needs."""
    env = make_env()
    data_spec(env).check_provides(spec, "the policy")
    env.close()


def seeds_of(config: Mapping[str, Any]) -> range:
    """The seeds that `seed0` and `episodes` of a config name."""
    if config["episodes"] < 1:
        raise ValueError(f"episodes must be at least 1, got {config['episodes']}.")
    return range(config["seed0"], config["seed0"] + config["episodes"])


def senses(spec: DataSpec) -> str:
    """vision_force, vision, force or state: which of the senses are observed."""
    modalities = {obs.modality for obs in spec.obs.values()}
    names = [
        name for kind, name in (("image", "vision"), ("wrench", "force")) if kind in modalities
    ]
    return "_".join(names) or "state"


def result_rows(results: Sequence[EpisodeResult], context: Mapping[str, Any]) -> list[Row]:
    """Success, how episodes ended, and what a tick cost."""
    return [
        success_row("success", [r.success for r in results], context=context),
        *outcome_rows([r.outcome for r in results], context),
        *cost_rows(results, context),
    ]


def outcome_rows(outcomes: Sequence[str], context: Mapping[str, Any]) -> list[Row]:
    """How often each outcome occurred, the most frequent one first."""
    return [
        success_row(
            "outcome", [o == outcome for o in outcomes], context={**context, "outcome": outcome}
        )
        for outcome, _ in Counter(outcomes).most_common()
    ]


def cost_rows(results: Sequence[EpisodeResult], context: Mapping[str, Any]) -> list[Row]:
    """Time [ms] of the ticks in which something was planned, and network evaluations a tick."""
    nfe = _stat(results, "nfe")
    planned = 1000 * _stat(results, "tick_s")[_stat(results, "is_plan") > 0]  # [ms]
    row = Row("nfe_per_tick", float(nfe.mean()), n=nfe.size, context=context)
    return [row, *percentile_rows("tick_ms", planned, "ms", context)]


def percentile_rows(
    name: str, values: NDArray[np.float64], unit: str, context: Mapping[str, Any]
) -> list[Row]:
    """p50, p95 and p99 of the values; none of nothing."""
    return [
        Row(
            name,
            float(np.percentile(values, p)),
            n=values.size,
            unit=unit,
            context={**context, "percentile": p},
        )
        for p in PERCENTILES
        if values.size
    ]


def _stat(results: Sequence[EpisodeResult], name: str) -> NDArray[np.float64]:
    return np.concatenate([np.asarray(r.agent_stats[name], np.float64) for r in results])
