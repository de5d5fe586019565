"""Training of a `PriorPredictor` on what the frozen policy itself plans."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Generator, Tensor, nn
from tqdm import tqdm

from data.dataset import WindowDataset
from data.formats.zarr_store import DemoStore
from policy.diffusion_policy import DiffusionPolicy
from policy.prior_predictor import PriorPredictor
from policy.samplers.base import noise_like
from policy.samplers.ddim import DDIM


@dataclass(frozen=True)
class DistillConfig:
    """How much the teacher plans, and how the predictor learns from it."""

    episodes: int = 100  # of the dataset, in which the teacher plans at every tick
    teacher_steps: int = 10  # network evaluations of its DDIM
    steps: int = 3000
    batch_size: int = 256
    lr: float = 1e-3
    hidden: int = 256
    num_layers: int = 2
    perturbation: float = 0.1  # [network units] standard deviation of what is added to the prior
    seed: int = 0

    def __post_init__(self) -> None:
        whole = (self.episodes - 1, self.teacher_steps, self.steps, self.batch_size)
        if min(whole) < 1 or not self.lr > 0 or not self.perturbation >= 0:
            raise ValueError(
                "episodes must be at least 2 (one is held out), teacher_steps, steps and "
                f"batch_size at least 1, lr above 0 and perturbation not negative, got {self}."
            )


@dataclass(frozen=True)
class Pairs:
    """Consecutive plans of the teacher, in network units."""

    context: Tensor  # (M, N, D) of the later observation
    prior: Tensor  # (M, Tp, A) the earlier plan, shifted
    target: Tensor  # (M, Tp, A) the later plan


@dataclass(frozen=True)
class DistilledPrior:
    """A trained predictor, and root mean square errors in network units on held-out episodes."""

    predictor: PriorPredictor
    pairs: int
    shifted_error: float  # of the shifted plan, which is what RTI starts from without a predictor
    predicted_error: float


def distill_prior(
    policy: DiffusionPolicy, store: DemoStore, config: DistillConfig, progress: bool = True
) -> DistilledPrior:
    """Let the policy plan along demonstrated episodes, and fit a predictor to consecutive plans."""
    store.spec.check_provides(policy.spec, "the policy")
    if config.episodes > store.num_episodes:
        raise ValueError(
            f"{config.episodes} episodes wanted, {store.path} has {store.num_episodes}; set "
            "predictor.episodes."
        )
    held_out = max(1, config.episodes // 10)
    pairs = list(_teacher_pairs(policy, store, config, progress))
    seen, unseen = _joined(pairs[held_out:]), _joined(pairs[:held_out])
    predictor = _fitted(policy, seen, config, progress)
    with torch.no_grad():
        predicted = predictor(unseen.context, unseen.prior)
    return DistilledPrior(
        predictor,
        len(seen.target),
        _rms(unseen.prior - unseen.target),
        _rms(predicted - unseen.target),
    )


def _teacher_pairs(
    policy: DiffusionPolicy, store: DemoStore, config: DistillConfig, progress: bool
) -> Iterator[Pairs]:
    """Those of one episode at a time."""
    dataset = WindowDataset(store, policy.horizons, policy.spec.obs)
    rng = np.random.default_rng(config.seed)
    generator = Generator(policy.low.device).manual_seed(config.seed)
    chosen = np.sort(rng.choice(store.num_episodes, config.episodes, replace=False))
    rng.shuffle(chosen)  # else the held-out ones would be the earliest
    starts, ends = store.episode_starts, store.episode_ends
    for index in tqdm(chosen, desc="teacher", unit="episode", disable=not progress):
        windows = dataset.__getitems__(range(int(starts[index]), int(ends[index])))["obs"]
        obs = {key: value.to(policy.low.device) for key, value in windows.items()}
        yield consecutive_plans(policy, obs, config.teacher_steps, generator)


@torch.no_grad()
def consecutive_plans(
    policy: DiffusionPolicy, obs: dict[str, Tensor], num_steps: int, generator: Generator
) -> Pairs:
    """Plans for the windows `obs` of one episode (L, ...), and each shifted to the next tick.

        noise of the episode  z0 z1 z2 z3 z4 z5
        plan of tick 0       [z0 z1 z2 z3]
        plan of tick 1          [z1 z2 z3 z4]

    DDIM makes a plan a function of its noise. The noise moves with the plan, so that two
    consecutive plans are mostly the same decision: with fresh noise each, the best prediction
    would be the mean of all decisions.
    """
    context = policy.encode(obs)  # (L, N, D)
    state = policy.begin(context, num_steps=num_steps, sampler=DDIM(), generator=generator)
    length, horizon, dim = state.x.shape
    noise = noise_like(context.new_empty(length + horizon - 1, dim), generator)
    state = replace(state, x=noise.unfold(0, horizon, 1).transpose(1, 2))
    while not state.done:
        state = policy.step(state)
    plans = state.x0  # (L, Tp, A)
    prior = torch.cat([plans[:-1, 1:], plans[:-1, -1:]], 1)
    return Pairs(context[1:], prior, plans[1:])


def _fitted(
    policy: DiffusionPolicy, pairs: Pairs, config: DistillConfig, progress: bool
) -> PriorPredictor:
    generator = Generator(policy.low.device).manual_seed(config.seed + 1)
    with torch.random.fork_rng():  # initial weights come from the global generator
        torch.manual_seed(config.seed)
        predictor = PriorPredictor(policy, config.hidden, config.num_layers)
    predictor.to(policy.low.device)
    optimizer = torch.optim.AdamW(predictor.parameters(), config.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    bar = tqdm(range(config.steps), desc="predictor", unit="step", disable=not progress)
    for _ in bar:
        rows = torch.randint(
            len(pairs.target), (config.batch_size,), generator=generator, device=generator.device
        )
        prior, context = pairs.prior[rows], pairs.context[rows]
        prior = prior + config.perturbation * noise_like(prior, generator)
        loss = nn.functional.mse_loss(predictor(context, prior), pairs.target[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch
        optimizer.step()
        schedule.step()
    return predictor.eval().requires_grad_(False)


def _joined(pairs: list[Pairs]) -> Pairs:
    parts = ("context", "prior", "target")
    return Pairs(*(torch.cat([getattr(pair, part) for pair in pairs]) for part in parts))


def _rms(difference: Tensor) -> float:
    return float(difference.square().mean().sqrt())
