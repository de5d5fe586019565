"""Training: one loop for CPU, one GPU or several, exact to the bit when resumed.

    run_dir/
      last/            newest checkpoint with training state; what resuming starts from
      best/            checkpoint with the highest "success" of the evaluator
      metrics.jsonl    one row every `log_every` steps, one per evaluation
      tensorboard/     the same as curves
      stats.json       statistics of the dataset, kept for the next run in this folder

On several GPUs the same command is started by `accelerate launch` or `torchrun`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from data.build import build
from data.formats.zarr_store import open_zarr
from data.mixture import Mixture
from data.spec import DataSpec, Horizons
from policy.allocator import keep_freed_memory
from policy.checkpoint import Checkpoint, CheckpointError, checkpoint_exists, open_checkpoint, plain
from policy.config import TrainConfig
from policy.diffusion_policy import DiffusionPolicy
from policy.normalizer import Normalizer
from policy.random_state import seed_everything
from policy.train_data import cached_stats
from policy.train_loop import LAST, DivergedError, Evaluator, TrainLoop, TrainSummary
from policy.train_state import TrainState

__all__ = ["DivergedError", "Evaluator", "TrainSummary", "build_policy", "train"]

# The other processes wait while the first one evaluates.
LONGEST_EVALUATION = timedelta(hours=6)
# Settings that do not change what is learnt.
FREE_TO_CHANGE = ("log_every", "save_every", "eval_every", "num_workers", "sharded")
LOG = logging.getLogger(__name__)


def train(
    config: TrainConfig,
    policy_config: Mapping[str, Any],
    horizons: Horizons,
    demonstrations: Mixture | Path | str,
    run_dir: Path | str,
    evaluator: Evaluator | None = None,
    resume: bool = False,
) -> TrainSummary:
    """Train the policy of `policy_config` on `demonstrations`, opened or a path.

    Weights, order of the data and random draws follow from `config.seed`, and with `resume` a run
    goes on from `run_dir/last` to the very bits of an uninterrupted one. SIGINT and SIGTERM end it
    after the step at hand, saved. The global random generators are seeded.
    """
    run_dir = Path(run_dir)
    keep_freed_memory()
    if config.threads:
        torch.set_num_threads(config.threads)
    accelerator = Accelerator(
        # Else accelerate does not look for other processes, and torchrun's would train one by one.
        cpu=not torch.accelerator.is_available(),
        mixed_precision=config.mixed_precision,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_EVALUATION)],
    )
    saved = _saved_run(run_dir, resume)
    accelerator.wait_for_everyone()
    seed_everything(config.seed)
    data = _opened(demonstrations)
    # Built before any row is read: a misspelt key fails within a second.
    policy = build_policy(policy_config, data.spec, horizons)
    data.check(policy.spec.obs)
    run_dir.mkdir(parents=True, exist_ok=True)
    dataset = data.windows(
        horizons,
        policy.spec.obs,
        config.cache_mb * 2**20,
        end_ticks=config.end_ticks,
        end_weight=config.end_weight,
    )
    recipe = plain(
        {
            "policy": dict(policy_config),
            "horizons": asdict(horizons),
            "train": asdict(config) | {"dataset": data.fingerprint()},
        }
    )
    if saved is None:
        with accelerator.main_process_first():
            _fit_normalizer(policy, data, run_dir / "stats.json")
    state = TrainState(config, policy, accelerator)
    if saved is not None:
        _check_same_run(saved, recipe)
        if saved.spec.to_dict() != policy.spec.to_dict():
            raise CheckpointError(
                f"{saved.path} was trained on observations {saved.spec.obs}, the dataset now has "
                f"{policy.spec.obs}; resume with the same, or start a run in another folder."
            )
        state.unpack(saved)
    return TrainLoop(config, recipe, state, dataset, run_dir, accelerator).run(evaluator)


def _opened(demonstrations: Mixture | Path | str) -> Mixture:
    if isinstance(demonstrations, Mixture):
        return demonstrations
    return Mixture([open_zarr(demonstrations)])


def build_policy(
    policy_config: Mapping[str, Any], spec: DataSpec, horizons: Horizons
) -> DiffusionPolicy:
    """The policy for data of `spec`, not fitted; ValueError where config and data do not fit."""
    policy = build(policy_config, spec=spec, horizons=horizons)
    if not isinstance(policy, DiffusionPolicy):
        raise ValueError(
            f"{policy_config.get('_target_')} is a {type(policy).__name__}; training wants a "
            "policy.diffusion_policy.DiffusionPolicy."
        )
    return policy


def _saved_run(run_dir: Path, resume: bool) -> Checkpoint | None:
    if resume:
        return open_checkpoint(run_dir / LAST)
    if checkpoint_exists(run_dir / LAST):
        raise CheckpointError(
            f"{run_dir} holds a run already; go on with it by resume=true or choose another folder."
        )
    return None


def _check_same_run(saved: Checkpoint, recipe: Mapping[str, Any]) -> None:
    """CheckpointError for another policy or dataset, a warning for settings that matter."""
    for part in ("policy", "horizons"):
        if changes := _changes(saved.config[part], recipe[part]):
            raise CheckpointError(
                f"{saved.path} was trained with another {part} ({'; '.join(changes)}); resume with "
                "the same, or start a run in another folder."
            )
    before, now = saved.config["train"], recipe["train"]
    if changes := _changes(before["dataset"], now["dataset"]):
        raise CheckpointError(
            f"{saved.path} was trained on another dataset ({'; '.join(changes)}); resume with the "
            "same, or start a run in another folder."
        )
    kept = now | {key: before.get(key) for key in FREE_TO_CHANGE}
    if changes := _changes(before, kept):
        LOG.warning(
            "resuming with %s: the result will differ from an uninterrupted run.",
            "; ".join(changes),
        )


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`key: old -> new` for every entry that differs."""
    return [
        f"{key}: {before.get(key)!r} -> {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


def _fit_normalizer(policy: DiffusionPolicy, data: Mixture, stats_path: Path) -> None:
    keys = [key for key, spec in policy.spec.obs.items() if spec.modality == "state"]
    stats = cached_stats(data, keys, stats_path)
    policy.set_normalizer(Normalizer.fit(stats, policy.spec, policy.companding))
