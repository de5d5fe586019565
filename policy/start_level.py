"""Where a warm start should begin: measured on pairs of plans, not guessed. Tensors in and out.

A plan G that is `shift` ticks old is taken to a level and denoised under the observations of now.
What is left of it is its contraction; what it must be rid of is its distance to the policy's own
samples. All chunks are in network units, in which demonstrations fill [-1, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Generator, Tensor

from data.spec import ActionSpec
from policy.diffusion_policy import DiffusionPolicy
from policy.normalizer import ACTION
from policy.samplers.base import Sampler, level_values
from policy.samplers.ddim import DDIM
from policy.schedule import Schedule
from policy.warm_start import ReNoised, WarmStart

PROBE = 0.02  # size of the disturbance whose contraction is measured
SEPARATION = 6.0  # two groups of samples so many standard deviations apart are two modes


@dataclass(frozen=True)
class Solver:
    """How a plan is made out of a context and, maybe, a guess."""

    policy: DiffusionPolicy
    warm_start: WarmStart = field(default_factory=ReNoised)
    sampler: Sampler = field(default_factory=DDIM)

    def cold(self, context: Tensor, num_steps: int, generator: Generator) -> Tensor:
        """Samples (B, Tp, A) from noise."""
        return self._solve(context, None, 1.0, num_steps, generator)

    def warm(
        self, context: Tensor, guess: Tensor, level: float, nfe: int, generator: Generator
    ) -> Tensor:
        """What becomes of `guess` (B, Tp, A) when it is taken to `level` and denoised."""
        prior = self.policy.normalizer.unnormalize(ACTION, guess)
        return self._solve(context, prior, level, nfe, generator)

    @torch.no_grad()
    def _solve(
        self, context: Tensor, prior: Tensor | None, level: float, nfe: int, generator: Generator
    ) -> Tensor:
        state = self.policy.begin(
            context,
            num_steps=nfe,
            start_level=level,
            prior=prior,
            warm_start=self.warm_start,
            sampler=self.sampler,
            generator=generator,
        )
        while not state.done:
            state = self.policy.step(state)
        return state.x0


@dataclass(frozen=True)
class Pairs:
    """M moments of which each has an old plan, shifted to it, and samples of its own."""

    context: Tensor  # (M, N, D)
    guess: Tensor  # (M, Tp, A)
    cold: Tensor  # (M, S, Tp, A)
    shift: int  # [ticks]


@dataclass(frozen=True)
class Mode:
    """The mode that the guess is nearest to: mean and spread, and how often there are two."""

    mean: Tensor  # (M, Tp, A)
    spread: Tensor  # (M, Tp, A) standard deviation
    two: Tensor  # (M,) bool: the samples fall into two groups


def shifted(plan: Tensor, ticks: int) -> Tensor:
    """The plan (..., Tp, A) seen `ticks` later, its last action repeated."""
    index = torch.arange(plan.shape[-2], device=plan.device) + ticks
    return plan.index_select(-2, index.clamp(max=plan.shape[-2] - 1))


def continuous_groups(action: ActionSpec) -> dict[str, list[int]]:
    """Dimensions of one unit each, without the discrete ones."""
    groups: dict[str, list[int]] = {}
    for index, unit in enumerate(action.units):
        if index not in action.discrete:
            groups.setdefault(unit, []).append(index)
    return groups


def nearest_mode(pairs: Pairs) -> Mode:
    """Mean and spread of the samples, or of their group nearest to the guess where there are two.

    Along the axis of largest variance the best split in two is found; it counts if the means of the
    groups lie more than `SEPARATION` of their own standard deviations apart. Of 16
    samples of one normal distribution, 3 in 1000 do.
    """
    count = pairs.cold.shape[1]
    flat = pairs.cold.flatten(2)  # (M, S, Tp * A)
    centred = flat - flat.mean(1, keepdim=True)
    axis = torch.linalg.svd(centred, full_matrices=False).Vh[:, 0]  # (M, Tp * A)
    place, order = (centred @ axis[..., None]).squeeze(-1).sort(1)  # (M, S)
    best = torch.full_like(place[:, 0], torch.inf)  # sum of squares within
    size, gap = torch.zeros_like(best).long(), torch.zeros_like(best)
    for left in range(1, count):
        low, high = place[:, :left], place[:, left:]
        within = low.var(1, correction=0) * left + high.var(1, correction=0) * (count - left)
        better = within < best
        best, size = torch.where(better, within, best), size.masked_fill(better, left)
        gap = torch.where(better, high.mean(1) - low.mean(1), gap)
    two = gap > SEPARATION * (best / count).sqrt()
    in_low = torch.arange(count, device=place.device) < size[:, None]  # (M, S), sorted
    members = torch.stack([in_low, ~in_low], 1).to(flat)  # (M, 2, S)
    ordered = flat.gather(1, order[..., None].expand_as(flat))
    means = members @ ordered / members.sum(-1, keepdim=True)  # (M, 2, Tp * A)
    near = (means - pairs.guess.flatten(1)[:, None]).square().sum(-1).argmin(1)  # (M,)
    chosen = members[torch.arange(len(near)), near]  # (M, S)
    weight = torch.where(two[:, None], chosen, torch.ones_like(chosen))[..., None]
    mean = (weight * ordered).sum(1) / weight.sum(1)
    variance = (weight * (ordered - mean[:, None]).square()).sum(1)
    spread = (variance / (weight.sum(1) - 1).clamp(min=1)).sqrt()
    return Mode(mean.view_as(pairs.guess), spread.view_as(pairs.guess), two)


def distance(a: Tensor, b: Tensor, groups: Mapping[str, Sequence[int]]) -> Tensor:
    """Root mean square over actions and dimensions of a - b (..., Tp, A), of the worst group."""
    each = [(a - b)[..., list(dims)].square().mean((-2, -1)).sqrt() for dims in groups.values()]
    return torch.stack(each).amax(0)


def shift_error(pairs: Pairs, mode: Mode, groups: Mapping[str, Sequence[int]]) -> Tensor:
    """Distance (M,) of the guess to its mode over the actions that the old plan still had."""
    overlap = max(1, pairs.guess.shape[1] - pairs.shift)
    return distance(pairs.guess[:, :overlap], mode.mean[:, :overlap], groups)


def contraction(
    solver: Solver, pairs: Pairs, toward: Tensor, level: float, nfe: int, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """How much of a small disturbance of the guess is left, and what became of the guess itself.

        |out(G + h u) - out(G)| / h

    with the same noise, for u towards `toward` (M, Tp, A) and for a random u: (2 M,). Below 1 the
    old plan is forgotten, tick by tick.
    """
    generator = torch.Generator(pairs.guess.device)

    def out(guess: Tensor) -> Tensor:
        generator.manual_seed(seed)
        return solver.warm(pairs.context, guess, level, nfe, generator)

    random = torch.randn(pairs.guess.shape, generator=generator.manual_seed(seed + 1)).to(toward)
    undisturbed = out(pairs.guess)
    left = []
    for direction in (toward - pairs.guess, random):
        unit = direction / direction.flatten(1).norm(dim=1).clamp(min=1e-9)[:, None, None]
        moved = out(pairs.guess + PROBE * unit) - undisturbed
        left.append(moved.flatten(1).norm(dim=1) / PROBE)
    return torch.cat(left), undisturbed


def gaussian_contraction(
    spread: float, level: float, nfe: int, schedule: Schedule, warm_start: WarmStart
) -> float:
    """`contraction` of DDIM where the policy is N(m, spread^2 I), in closed form.

    One step from (alpha, sigma) to (alpha', sigma') multiplies a disturbance by
    (alpha alpha' s^2 + sigma sigma') / (alpha^2 s^2 + sigma^2); the warm start by its own factor.
    One step to level 0 gives alpha s^2 / (alpha^2 s^2 + sigma^2), many of them
    s / sqrt(alpha^2 s^2 + sigma^2).
    """
    levels = level_values(nfe, level, schedule.num_levels)
    left, _ = warm_start.factors(levels[0], schedule)
    for now, after in pairwise(levels):
        alpha, sigma = schedule.alpha(now), schedule.sigma(now)
        kept = alpha * schedule.alpha(after) * spread**2 + sigma * schedule.sigma(after)
        left *= kept / (alpha**2 * spread**2 + sigma**2)
    return left


def strangeness(out: Tensor, pairs: Pairs, groups: Mapping[str, Sequence[int]]) -> Tensor:
    """Mean distance (M,) of `out` to the cold samples over that of these to each other.

    1 is a result that could be one of them; a mean of a distribution is below, a stale plan above.
    """
    count = pairs.cold.shape[1]
    to_cold = distance(out[:, None], pairs.cold, groups).mean(1)
    among = distance(pairs.cold[:, :, None], pairs.cold[:, None], groups)  # (M, S, S)
    return to_cold / (among.sum((1, 2)) / (count * (count - 1))).clamp(min=1e-6)


def flip_rate(out: Tensor, pairs: Pairs, discrete: Sequence[int]) -> float | None:
    """Of discrete actions that the policy now wants to be others, the share that `out` changed.

    What the policy wants is the sign that most cold samples agree on; None where no guess differs.
    """
    if not discrete:
        return None
    dims = list(discrete)
    wanted = pairs.cold[:, :, 0, dims].sign().mean(1)  # (M, n) of the action that is next
    stale = (wanted.abs() > 0) & (wanted.sign() != pairs.guess[:, 0, dims].sign())
    if not stale.any():
        return None
    changed = out[:, 0, dims].sign() == wanted.sign()
    return float(changed[stale].float().mean())
