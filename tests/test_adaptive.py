"""The adaptive controller on a policy known in closed form, with a target that jumps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.spec import Obs
from deploy.agent import LockstepAgent
from deploy.controllers.adaptive import AdaptiveController
from deploy.controllers.base import Controller
from deploy.controllers.cold import ColdController
from deploy.controllers.rti import RTIController
from envs.history import ObsHistory
from policy.calibration import Calibration
from policy.diffusion_policy import DiffusionPolicy
from policy.level_grid import GridSettings, measure
from policy.moments import Moments, wrench_key, wrench_rate
from policy.normalizer import Normalizer
from policy.start_level import Solver
from tests.tiny_env import STAND_STILL, STEP, TINY_SPEC, tiny_env
from tests.tiny_policy import Bounds
from tests.toy_policy import Gaussian, toy_policy

HISTORY, PRED, JUMP_AT, TICKS, SEEDS = 4, 8, 2, 40, range(16)
LOW = 0.1  # a level at which much of the old plan survives
HIGH = TINY_SPEC.action.high
SPREAD = 0.3  # of the policy's answers, where actions fill [-1, 1]


def walk(context: Tensor) -> Tensor:
    """The chunk (B, Tp, A) in network units that walks to the goal at full speed, and stands."""
    pose, goal = context[..., :2], context[..., 9:11]  # (B, 1, 2)
    ticks = torch.arange(PRED)[:, None]
    way = (goal - pose) / STEP  # [ticks of full speed]
    left = (way.abs() - ticks).clamp(min=0, max=1) * way.sign()  # (B, Tp, 2)
    return torch.nn.functional.pad(left, (0, TINY_SPEC.action.dim - 2))


@pytest.fixture(scope="module")
def policy() -> DiffusionPolicy:
    unit = {key: Bounds(-np.ones(s.shape), np.ones(s.shape)) for key, s in TINY_SPEC.obs.items()}
    unit["action"] = Bounds(np.array(TINY_SPEC.action.low), np.array(TINY_SPEC.action.high))
    keys = ("pose", "goal", "wrench")
    normalizer = Normalizer.fit(unit, TINY_SPEC.select(keys))
    return toy_policy(TINY_SPEC, Gaussian(walk, SPREAD), PRED, keys, normalizer=normalizer)


def windows(policy: DiffusionPolicy, seed: int, ticks: int) -> list[Obs]:
    """What a walk of the expert sees."""
    env, history = tiny_env()(), ObsHistory(policy.spec, policy.horizons)
    obs, _ = env.reset(seed=seed)
    seen = []
    for _ in range(ticks):
        history.push(obs)
        seen.append(history.windowed())
        action = STAND_STILL.copy()
        action[:2] = np.clip(obs["goal"] - obs["pose"][:2], -STEP, STEP)
        obs, *_ = env.step(action)
    return seen


@pytest.fixture(scope="module")
def calibration(policy: DiffusionPolicy) -> Calibration:
    """Of walks whose goal stays where it is."""
    walks = [windows(policy, 1000 + seed, HISTORY + 1)[::-1] for seed in range(64)]
    batches = [
        {
            key: torch.from_numpy(np.stack([walk[k][key] for walk in walks]))
            for key in policy.spec.obs
        }
        for k in range(HISTORY + 1)
    ]
    rates = [wrench_rate(batch["wrench"], 5, 10.0) for batch in batches]
    moments = Moments(torch.stack([policy.encode(batch) for batch in batches]), torch.cat(rates))
    settings = GridSettings(
        (1, HISTORY), (1, 2), tuple(k / 10 for k in range(1, 11)), cold_steps=5, reaction_ticks=0.5
    )
    found = measure(Solver(policy), moments, settings)
    return Calibration("", "renoised", {}, {}, found.choices, found.residuals, found.contact)


@dataclass(frozen=True)
class Reaction:
    ticks: int  # from the first sight of the jump until the mean command has turned by 63 %
    nfe: float  # a tick, over whole episodes, with their plan from noise


def reaction(make: Callable[[], Controller], policy: DiffusionPolicy, jump_at: int) -> Reaction:
    agent = LockstepAgent(make(), policy.spec, policy.horizons)
    env, turned, nfe = tiny_env(jump_at=jump_at)(), [], []
    low, high = (np.array(bound, np.float32) for bound in (TINY_SPEC.action.low, HIGH))
    for seed in SEEDS:
        obs, _ = env.reset(seed=seed)
        agent.reset(seed)
        commands, wanted = [], []
        for tick in range(TICKS):
            action = agent.act(obs, tick / TINY_SPEC.rate_hz)
            commands.append(action[:2])
            wanted.append(np.clip(obs["goal"] - obs["pose"][:2], -STEP, STEP))
            obs, *_ = env.step(np.clip(action, low, high))
        nfe += agent.stats()["nfe"]
        before, after = wanted[jump_at - 1], wanted[jump_at]
        turn = after - before
        turned.append((np.array(commands[jump_at:]) - before) @ turn / (turn @ turn))
    mean = np.mean(turned, 0)  # over seeds: samples of a policy are scattered
    return Reaction(int(np.argmax(mean >= 0.63)), float(np.mean(nfe)))


def test_adaptive_turns_to_a_moved_target_as_fast_as_a_cold_policy_at_two_evaluations(
    policy: DiffusionPolicy, calibration: Calibration
) -> None:
    def of(make: Callable[[], Controller]) -> Reaction:
        return reaction(make, policy, JUMP_AT)

    cold = of(lambda: ColdController(policy, num_steps=10, exec_horizon=1))
    low = of(lambda: RTIController(policy, start_level=LOW))
    high = of(lambda: RTIController(policy, start_level=0.8))
    # Without contacts: the tiny wrench is a distance, and jumps with the goal.
    blind = partial(AdaptiveController, policy, LOW, contact_ticks=0, calibration=calibration)
    adaptive = of(blind)
    print(f"\ncold {cold}\nrti {LOW} {low}\nrti 0.8 {high}\nadaptive {adaptive}")
    assert cold.nfe == 10
    assert low.ticks >= cold.ticks + 2  # the same level, not looked at
    assert high.ticks <= cold.ticks + 1
    assert adaptive.ticks <= cold.ticks + 1
    assert adaptive.nfe <= 2


def test_a_target_that_stays_costs_little_more_than_one_evaluation(
    policy: DiffusionPolicy, calibration: Calibration
) -> None:
    make = partial(AdaptiveController, policy, LOW, calibration=calibration)
    assert reaction(make, policy, jump_at=TICKS - 1).nfe < 1.8


def nfe_at(
    policy: DiffusionPolicy, calibration: Calibration, second: Obs, **options: Any
) -> tuple[int, AdaptiveController]:
    """Evaluations of a tick that sees `second` after one that saw the start of a walk."""
    options = {"probe_level": LOW, "contact_ticks": 0, **options}
    controller = AdaptiveController(policy, calibration=calibration, **options)
    controller.update(windows(policy, 0, 1)[0], 0.0)
    assert controller.last_nfe == 10
    controller.update(second, 0.1)
    return controller.last_nfe, controller


def test_residual_decides_between_accepting_raising_and_restarting(
    policy: DiffusionPolicy, calibration: Calibration
) -> None:
    second = windows(policy, 0, 2)[1]
    always = {"accept_quantile": 1.0, "restart_quantile": 1.0}
    assert nfe_at(policy, calibration, second, **always)[0] == 1
    between = {"accept_quantile": 0.0, "restart_quantile": 1.0}
    assert nfe_at(policy, calibration, second, **between, raised_nfe=2)[0] == 3
    moved = {**second, "goal": -second["goal"]}
    assert nfe_at(policy, calibration, moved)[0] == 11


def test_raised_ticks_start_above_the_probe(
    policy: DiffusionPolicy, calibration: Calibration
) -> None:
    _, controller = nfe_at(policy, calibration, windows(policy, 0, 2)[1])
    assert controller.probe_level == LOW < controller.raised_level <= 1
    assert 0 < controller.accept < controller.restart


def test_a_contact_raises_the_level_for_some_ticks(
    policy: DiffusionPolicy, calibration: Calibration
) -> None:
    second = windows(policy, 0, 2)[1]
    wrench = second["wrench"].copy()
    wrench[-5:, 0] += 20.0  # [N] within one tick
    hit = {**second, "wrench": wrench}
    calm = {**second, "wrench": np.zeros_like(wrench)}
    options = {"accept_quantile": 1.0, "restart_quantile": 1.0, "contact_ticks": 2}
    nfe, controller = nfe_at(policy, calibration, hit, **options)
    counts = [nfe]
    for tick in range(2, 5):
        controller.update(calm, 0.1 * tick)
        counts.append(controller.last_nfe)
    assert counts == [2, 2, 1, 1]


def test_without_a_wrench_there_are_no_contacts(calibration: Calibration) -> None:
    blind = toy_policy(TINY_SPEC, Gaussian(walk, SPREAD), PRED, ("pose", "goal"))
    assert wrench_key(blind.spec, blind.horizons.window) is None
    nfe, _ = nfe_at(blind, calibration, windows(blind, 0, 2)[1], contact_ticks=3)
    assert nfe >= 1


def test_reset_forgets_everything_and_the_seed_decides_the_noise(
    policy: DiffusionPolicy, calibration: Calibration
) -> None:
    controller = AdaptiveController(policy, LOW, calibration=calibration)
    seen = windows(policy, 0, 4)

    def run(seed: int) -> NDArray[np.float64]:
        controller.reset(seed)
        return np.stack([controller.update(o, 0.1 * k).actions for k, o in enumerate(seen)])

    first = run(1)
    assert not np.array_equal(first, run(2))
    np.testing.assert_array_equal(first, run(1))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"accept_quantile": 0.9, "restart_quantile": 0.5}, "accept_quantile"),
        ({"contact_ticks": -1}, "contact_ticks"),
        ({"probe_level": 1.5}, "level"),
        ({"probe_level": "guessed"}, "estimated, got 'guessed'"),
        ({"raised_nfe": 3}, "no start level for exec_horizon 4 and nfe 3"),
        ({"warm_start": "as_is"}, "calibrated with warm_start=renoised"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    policy: DiffusionPolicy, calibration: Calibration, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        AdaptiveController(policy, calibration=calibration, **options)


def test_a_policy_without_calibration_is_told_what_to_run(policy: DiffusionPolicy) -> None:
    with pytest.raises(ValueError, match="prise calibrate"):
        AdaptiveController(policy)
