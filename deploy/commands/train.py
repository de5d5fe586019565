"""`prise train`: a policy from demonstrations."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from data.mixture import Mixture, open_mixture
from data.spec import Horizons
from deploy.agent import AgentFactory
from deploy.commands.simulation import check_fits, matching_env, seeds_of
from envs.base import EnvFactory
from envs.evaluate import evaluate
from policy.config import TrainConfig
from policy.train import TrainSummary, train


def run(config: dict[str, Any]) -> int:
    """Train into `out`."""
    train_policy(config)
    return 0


def train_policy(config: Mapping[str, Any]) -> TrainSummary:
    """How a run into `out` ended; prints where the checkpoint is."""
    settings = TrainConfig(**config["train"])
    data = open_mixture(config["dataset"])
    evaluator = _evaluator(config, data) if settings.eval_every else None
    summary = train(
        settings,
        policy_config(config),
        Horizons(**config["horizons"]),
        data,
        config["out"],
        evaluator,
        resume=config["resume"],
    )
    how = "stopped" if summary.interrupted else "done"
    print(
        f"{how} at step {summary.step} of {summary.steps} after {summary.seconds / 60:.1f} min, "
        f"loss {summary.loss:.4f}: {summary.checkpoint}"
    )
    if summary.interrupted:
        print("the same command with resume=true goes on from here.")
    return summary


def policy_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The policy as `data.build` builds it, from the groups of the command."""
    groups = ("encoder", "denoiser", "schedule", "parameterization", "sampler", "levels")
    parts = (*groups, "noise_samples", "level_power", "companding")
    target = {"_target_": "policy.diffusion_policy.DiffusionPolicy"}
    return target | {part: config[part] for part in parts}


@dataclass(frozen=True)
class SimulationEvaluator:
    """Success in simulation of the checkpoint in a folder, for the training loop."""

    make_env: EnvFactory
    controller: Mapping[str, Any]
    seeds: range
    workers: int

    def __call__(self, checkpoint: Path) -> dict[str, float]:
        """Run the episodes; {"success": rate}."""
        agent = AgentFactory(checkpoint, self.controller)
        results = evaluate(self.make_env, agent, self.seeds, workers=self.workers)
        return {"success": sum(r.success for r in results) / len(results)}


def _evaluator(config: Mapping[str, Any], data: Mixture) -> SimulationEvaluator:
    evaluation = config["evaluation"]
    spec = data.spec.select(config["encoder"]["encoders"])
    data.check(spec.obs)
    make_env = matching_env(config["env"], spec)
    # In a process of its own: training and rendering must not share one. And now: what does not fit
    # must not end a run after its first hour.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        apart.submit(check_fits, make_env, spec).result()
    seeds, workers = seeds_of(evaluation), evaluation["workers"]
    return SimulationEvaluator(make_env, config["controller"], seeds, workers)
