"""The published stepping of RTI-DP, against its formulas written out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.build import build
from data.spec import Obs
from deploy.controllers.rti_paper import RTIPaperController
from envs.history import ObsHistory
from policy.diffusion_policy import DiffusionPolicy
from policy.normalizer import ACTION
from policy.published_rti import published_steps
from policy.schedule import LinearSchedule
from tests.tiny_env import tiny_env
from tests.tiny_gripper import GRIPPER, gripper_policy
from tests.tiny_policy import TINY_CONFIG, TINY_HORIZONS, tiny_policy

DT, N = 0.1, 100
EPSILON = {"parameterization": {"_target_": "policy.parameterization.Epsilon"}}
Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def policy() -> DiffusionPolicy:
    """Predicts the noise, as the published checkpoints do."""
    plain = tiny_policy()
    policy = build({**TINY_CONFIG, **EPSILON}, spec=plain.spec, horizons=plain.horizons)
    assert isinstance(policy, DiffusionPolicy)
    policy.load_state_dict(plain.state_dict())
    return policy.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def obs(policy: DiffusionPolicy) -> Obs:
    history = ObsHistory(policy.spec, TINY_HORIZONS)
    history.push(tiny_env()().reset(seed=0)[0])
    return history.windowed()


def cosine_betas() -> Array:
    """`betas_for_alpha_bar` of diffusers, `squaredcos_cap_v2`."""

    def alpha_bar(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    return np.array([min(1 - alpha_bar((i + 1) / N) / alpha_bar(i / N), 0.999) for i in range(N)])


def linear_betas() -> Array:
    """`linear` of diffusers with its defaults, which the published evaluation falls back to."""
    return np.linspace(1e-4, 0.02, N)


def diffusers_step(eps: Tensor, t: int, x: Tensor, betas: Array, noise: Tensor | None) -> Tensor:
    """`DDPMScheduler.step` of diffusers 0.11.1: epsilon, clip_sample, fixed_small."""
    alphas_cumprod = np.cumprod(1 - betas)
    ab, ab_prev = alphas_cumprod[t], alphas_cumprod[t - 1] if t > 0 else 1.0
    x0 = (x - math.sqrt(1 - ab) * eps) / math.sqrt(ab)
    x0 = x0.clamp(-1, 1)
    x0_coefficient = math.sqrt(ab_prev) * betas[t] / (1 - ab)
    x_coefficient = math.sqrt(1 - betas[t]) * (1 - ab_prev) / (1 - ab)
    previous: Tensor = x0_coefficient * x0 + x_coefficient * x
    if t > 0:
        assert noise is not None
        variance = (1 - ab_prev) / (1 - ab) * betas[t]
        previous += math.sqrt(max(variance, 1e-20)) * noise
    return previous


@pytest.mark.parametrize("steps", [[3, 1, 0], [7, 5, 3, 1, 0], [25, 12, 0]])
@pytest.mark.parametrize("as_published", [False, True])
def test_a_tick_is_the_published_one(
    policy: DiffusionPolicy, obs: Obs, steps: list[int], as_published: bool
) -> None:
    controller = RTIPaperController(policy, steps, schedule_as_published=as_published)
    controller.reset(seed=5)
    first = controller.update(obs, 0.0)
    noise_state = controller._generator.get_state()
    second = controller.update(obs, DT)

    betas = linear_betas() if as_published else cosine_betas()
    generator = torch.Generator()
    generator.set_state(noise_state)
    guess = policy.normalizer.normalize(ACTION, torch.from_numpy(first.actions.copy()).float())
    x = torch.cat([guess[1:], guess[-1:]])[None]
    context = policy.encode({k: torch.from_numpy(obs[k])[None] for k in policy.spec.obs})
    for t in steps:
        eps = policy.denoiser(x, torch.full((1, 1), (t + 1) / N), context)
        noise = torch.randn(x.shape, generator=generator) if t > 0 else None
        x = diffusers_step(eps, t, x, betas, noise)
    wanted = policy.normalizer.unnormalize(ACTION, x)[0]
    np.testing.assert_allclose(second.actions, wanted, atol=2e-5)
    assert (second.t0, controller.last_nfe) == (DT, len(steps))


class Silent(nn.Module):
    """Says that there is no noise, and writes down which levels it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.levels: list[float] = []

    def forward(self, x: Tensor, level: Tensor, context: Tensor) -> Tensor:
        self.levels.append(round(float(level), 6))
        return torch.zeros_like(x)


@pytest.fixture
def silent() -> DiffusionPolicy:
    policy = gripper_policy(**EPSILON)
    policy.denoiser = Silent()
    return policy


def test_steps_by_hand(silent: DiffusionPolicy) -> None:
    """With eps = 0, x0 = x / sqrt(ab_t); the last step is at x0, and the one before moves x."""
    ab = np.cumprod(1 - cosine_betas())
    x, context = torch.full((1, 8, 10), 0.4), torch.zeros(1, 1, 16)
    last = published_steps(silent, context, x, [0], silent.schedule, None)
    torch.testing.assert_close(last, x / math.sqrt(ab[0]))
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    moved = published_steps(silent, context, x, [3], silent.schedule, generator)
    # ab_3 = 0.995, ab_2 = 0.997: mean = (sqrt(ab_2) beta_3 / (1 - ab_3) / sqrt(ab_3)
    # + sqrt(alpha_3) (1 - ab_2) / (1 - ab_3)) 0.4
    beta = 1 - ab[3] / ab[2]
    mean = math.sqrt(ab[2]) * beta / (1 - ab[3]) / math.sqrt(ab[3])
    mean += math.sqrt(1 - beta) * (1 - ab[2]) / (1 - ab[3])
    spread = math.sqrt((1 - ab[2]) / (1 - ab[3]) * beta)
    torch.testing.assert_close(moved, 0.4 * mean + spread * noise, atol=1e-6, rtol=0)


def test_the_network_is_told_the_list_and_nothing_is_added_before_it(
    silent: DiffusionPolicy, obs: Obs
) -> None:
    denoiser = silent.denoiser
    assert isinstance(denoiser, Silent)
    controller = RTIPaperController(silent, [7, 3, 0])
    controller.update(obs, 0.0)
    assert denoiser.levels == [round((t + 1) / N, 6) for t in range(N - 1, -1, -1)]
    denoiser.levels.clear()
    controller.update(obs, DT)
    assert denoiser.levels == [0.08, 0.04, 0.01]


def test_it_shifts_by_one_however_much_time_has_passed(silent: DiffusionPolicy, obs: Obs) -> None:
    controller = RTIPaperController(silent, [0], discrete="none")
    first = controller.update(obs, 0.0).actions
    for stamp in (0.5 * DT, 7.0):
        controller.reset()
        controller.update(obs, 0.0)
        second = controller.update(obs, stamp).actions
        shifted = np.concatenate([first[1:], first[-1:]])
        np.testing.assert_allclose(second, shifted, rtol=0.01, atol=0.01)


def test_reset_forgets_the_guess_and_the_seed_decides_the_noise(
    policy: DiffusionPolicy, obs: Obs
) -> None:
    controller, runs, costs = RTIPaperController(policy), [], []
    for seed in (1, 1, 2):
        controller.reset(seed)
        for tick in range(3):
            runs.append(controller.update(obs, tick * DT).actions)
            costs.append(controller.last_nfe)
    assert costs == [100, 3, 3] * 3
    np.testing.assert_array_equal(runs[0:3], runs[3:6])
    assert not np.array_equal(runs[2], runs[8])


@pytest.mark.parametrize(("how", "kept"), [("clip", 0.25), ("scale", None), ("none", None)])
def test_discrete_dimensions_are_executed_as_signs_and_kept_as_published(
    obs: Obs, how: str, kept: float | None
) -> None:
    controller = RTIPaperController(gripper_policy(), discrete=how, discrete_factor=4.0)
    chunk = controller.update(obs, 0.0)
    assert controller._guess is not None
    guess = controller._guess[0, :, GRIPPER].numpy()
    executed = chunk.actions[:, GRIPPER]
    if kept is None:
        assert len(np.unique(np.abs(guess))) > 1
    else:
        np.testing.assert_array_equal(np.abs(guess), kept)
    if how == "none":
        np.testing.assert_allclose(executed, guess.clip(-1, 1), atol=1e-6)
    else:
        np.testing.assert_array_equal(executed, np.sign(guess))


def test_the_published_schedule_is_linear_with_the_levels_of_the_policy() -> None:
    alphas = [LinearSchedule(N).alpha((t + 1) / N) ** 2 for t in range(N)]
    np.testing.assert_allclose(alphas, np.cumprod(1 - linear_betas()), rtol=1e-9)


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": []},
        {"steps": [3, 1]},
        {"steps": [1, 3, 0]},
        {"steps": [100, 0]},
        {"steps": [2, 1.0, 0]},
        {"discrete": "neutral"},
        {"discrete_factor": 0.0},
    ],
)
def test_settings_that_cannot_work_are_refused(
    policy: DiffusionPolicy, settings: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="got"):
        RTIPaperController(policy, **settings)
