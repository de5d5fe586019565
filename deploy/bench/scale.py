"""`prise bench scale`: what many episodes and many GPUs take, out of parts that are measured here.

    collecting [h] = episodes * max(seconds of a core for one / cores, seconds to write one)
    an epoch [h]   = windows / (GPUs * windows per second of one * its efficiency among many)

Nothing is extrapolated silently: what is assumed stands in the config's `scale` and in every row.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from time import monotonic
from typing import Any

from data.build import build
from data.formats.zarr_store import ZarrWriter, open_zarr
from data.results import Row, print_table, write_results
from data.spec import Horizons
from deploy.bench.train_step import FEWEST_ROWS, logged_steps, step_rows
from deploy.commands.simulation import seeds_of
from deploy.commands.train import policy_config
from envs.collect import collect
from policy.config import TrainConfig
from policy.train import train

HOUR = 3600.0  # [s]


@dataclass(frozen=True)
class Parts:
    """What one core and one training process did."""

    episode_core_s: (
        float  # [s] of a core for an episode that is kept, start of the process included
    )
    write_s: float  # [s] of the one process that writes, per episode
    episode_bytes: float  # on disk
    episode_windows: float  # samples that it gives an epoch
    windows_per_s: float  # of one training process
    weights_bytes: float


@dataclass(frozen=True)
class Scale:
    """What is wanted, and what is assumed of machines that are not here.

    Attributes:
        episodes: Demonstrations to collect.
        cores: That collect them.
        gpus: That train, one process each.
        epochs: Times that each window is seen.
        gpu_speedup: Windows per second of a GPU by those of the process measured here. `prise bench
            train` on both machines gives it.
        efficiency: Windows per second of a process among all by those of one alone.
    """

    episodes: int = 1_000_000
    cores: int = 1000
    gpus: int = 64
    epochs: int = 1
    gpu_speedup: float = 1.0
    efficiency: float = 0.85

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value <= 0:
                raise ValueError(f"scale.{name} must be above 0, got {value}.")


def scaled(parts: Parts, scale: Scale, batch_size: int) -> dict[str, tuple[float, str]]:
    """Part -> (value, unit) of the whole; `batch_size` is that of one process."""
    rate = parts.windows_per_s * scale.gpu_speedup * scale.efficiency  # of one GPU
    windows = scale.episodes * parts.episode_windows
    epoch_s = windows / (scale.gpus * rate)
    stored = scale.episodes * parts.episode_bytes
    core_s, write_s = scale.episodes * parts.episode_core_s, scale.episodes * parts.write_s
    return {
        "collect_core_hours": (core_s / HOUR, "h"),
        "write_hours": (write_s / HOUR, "h"),
        "collect_hours": (max(core_s / scale.cores, write_s) / HOUR, "h"),
        "storage": (stored / 1e12, "TB"),
        "epoch_gpu_hours": (epoch_s * scale.gpus / HOUR, "h"),
        "train_hours": (scale.epochs * epoch_s / HOUR, "h"),
        # Each episode is read once an epoch.
        "dataset_reads": (stored / epoch_s / 1e6, "MB/s"),
        # A ring's all-reduce sends every gradient twice in each step.
        "gradient_traffic": (2 * parts.weights_bytes * rate / batch_size / 1e6, "MB/s per GPU"),
    }


def run(config: dict[str, Any]) -> int:
    """Collect and train a little, throw both away, write `results.json` and print its table."""
    settings = TrainConfig(**config["train"])
    if config["steps"] < FEWEST_ROWS * settings.log_every:
        raise ValueError(
            f"steps must be at least {FEWEST_ROWS} x train.log_every = "
            f"{FEWEST_ROWS * settings.log_every}, got {config['steps']}."
        )
    scale = Scale(**config["scale"])
    with tempfile.TemporaryDirectory() as folder:
        parts = _measured(config, settings, Path(folder))
    context = {"task": config["choices"]["env"], "batch_size": settings.batch_size}
    context |= {"threads": settings.threads}
    rows = [
        Row("episode_core_s", parts.episode_core_s, unit="s", context=context),
        Row("episode_write_s", parts.write_s, unit="s", context=context),
        Row("episode_mb", parts.episode_bytes / 1e6, unit="MB", context=context),
        Row("windows_per_s", parts.windows_per_s, unit="1/s", context=context),
        *(
            Row("scale", value, unit=unit, context={"part": part, **asdict(scale)})
            for part, (value, unit) in scaled(parts, scale, settings.batch_size).items()
        ),
    ]
    write_results(Path(config["out"]) / "results.json", "bench scale", rows, seeds_of(config))
    print_table(rows)
    return 0


def _measured(config: dict[str, Any], settings: TrainConfig, folder: Path) -> Parts:
    path, run_dir = folder / "demos.zarr", folder / "run"
    episodes = len(seeds_of(config))
    env, expert = build(config["env"]), build(config["expert"])
    # In a process of its own: training and rendering must not share one.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        summary = apart.submit(collect, env, expert, path, episodes, seed0=config["seed0"]).result()
    steps = config["steps"]
    settings = replace(settings, steps=steps, save_every=steps, eval_every=0)
    train(settings, policy_config(config), Horizons(**config["horizons"]), path, run_dir)
    step_s = step_rows(logged_steps(run_dir), settings.log_every, {})[0].value / 1000
    return Parts(
        episode_core_s=summary.seconds / episodes,
        write_s=_write_seconds(path, folder / "again.zarr") / episodes,
        episode_bytes=_size(path) / episodes,
        episode_windows=open_zarr(path).num_steps / episodes,
        windows_per_s=settings.batch_size / step_s,
        weights_bytes=_size(run_dir / "last" / "weights.safetensors"),
    )


def _write_seconds(source: Path, path: Path) -> float:
    """Seconds to write the episodes of `source` once more, as a collection does."""
    store, seconds = open_zarr(source), 0.0
    with ZarrWriter(path, store.spec, {}) as writer:
        for index in range(store.num_episodes):
            episode = store.episode(index)
            started = monotonic()
            writer.append(episode)
            seconds += monotonic() - started
    return seconds


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
