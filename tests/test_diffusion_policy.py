"""The policy: loss, stepwise solving, warm starts, units, and what its state dict holds."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.spec import ActionSpec, DataSpec, Horizons, ObsSpec
from policy.denoisers import DiffusionTransformer, UNet1d
from policy.diffusion_policy import DiffusionPolicy
from policy.encoders import CausalConvEncoder, Concat, ObsEncoder, SmallResNet, StateMLP
from policy.normalizer import Normalizer
from policy.parameterization import X0, Epsilon, Parameterization, V
from policy.samplers import DDIM, DDPM, DPMSolverPP2M, Sampler
from policy.schedule import CosineSchedule, FlowSchedule, LinearSchedule, Schedule
from policy.warm_start import AsIs

SPEC = DataSpec(
    obs={
        "camera": ObsSpec((16, 16, 3), "image", "", 10),
        "pose": ObsSpec((3,), "state", "m", 10),
        "unused": ObsSpec((4,), "state", "", 10),
        "wrench": ObsSpec((6,), "wrench", "N, N m", 100),
    },
    action=ActionSpec(("dx", "dy"), ("m", "m"), (-0.02, -0.02), (0.02, 0.05)),
    rate_hz=10,
)
HORIZONS = Horizons(obs=2, pred=4, window=8)


@dataclass(frozen=True)
class Range:
    min: NDArray[np.float64]
    max: NDArray[np.float64]


STATS = {
    "pose": Range(-np.ones(3), np.ones(3)),
    "unused": Range(-np.ones(4), np.ones(4)),
    "action": Range(np.array([-0.01, 0.0]), np.array([0.01, 0.05])),
}


def make(**options: Any) -> DiffusionPolicy:
    torch.manual_seed(0)
    encoders: dict[str, Callable[..., nn.Module]] = {
        "camera": partial(SmallResNet, channels=(8, 8), crop=0.75),
        "pose": StateMLP,
        "wrench": CausalConvEncoder,
    }
    options = {
        "denoiser": partial(DiffusionTransformer, width=32, num_layers=1, num_heads=2),
        "normalizer": Normalizer.fit(STATS, SPEC),
        **options,
    }
    encoder = partial(ObsEncoder, encoders=encoders, fusion=partial(Concat, hidden=32, dim=16))
    policy = DiffusionPolicy(SPEC, HORIZONS, encoder, **options)
    for parameter in policy.denoiser.parameters():
        if not parameter.any():  # Zero at birth: nothing could be seen of context and levels.
            nn.init.normal_(parameter, std=0.1)
    return policy.eval()


def batch(size: int = 3) -> dict[str, Any]:
    noise = torch.Generator().manual_seed(5)
    obs = {
        "camera": torch.randint(0, 256, (size, 2, 16, 16, 3), dtype=torch.uint8, generator=noise),
        "pose": torch.rand(size, 2, 3, generator=noise),
        "unused": torch.rand(size, 2, 4, generator=noise),
        "wrench": torch.randn(size, 8, 6, generator=noise),
    }
    action = torch.rand(size, 4, 2, generator=noise) * 0.01
    return {"obs": obs, "action": action, "valid": torch.ones(size, 4, dtype=torch.bool)}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Constant(nn.Module):
    """Predicts the same chunk whatever it sees, and counts its evaluations."""

    def __init__(self, value: float, **sizes: int) -> None:
        super().__init__()
        self.value, self.calls = value, 0
        self.levels: list[Tensor] = []

    def forward(self, x: Tensor, level: Tensor, context: Tensor) -> Tensor:
        self.calls += 1
        self.levels.append(level)
        return torch.full_like(x, self.value)


def constant(policy: DiffusionPolicy) -> Constant:
    assert isinstance(policy.denoiser, Constant)
    return policy.denoiser


def test_only_valid_actions_count() -> None:
    # The denoiser sees invalid actions beside the valid ones; this one looks at nothing.
    policy, data = make(denoiser=partial(Constant, 0.3)), batch()
    data["valid"][1, 2:] = False
    loss = policy.loss(data, seeded())
    data["action"][1, 2:] = 0.05
    assert torch.equal(policy.loss(data, seeded()), loss)
    data["action"][1, 1] = 0.05
    assert not torch.equal(policy.loss(data, seeded()), loss)


def test_loss_without_any_valid_action_is_zero() -> None:
    data = batch()
    data["valid"][:] = False
    assert make().loss(data, seeded()) == 0


def test_loss_of_the_x0_target_is_the_mean_squared_error_in_network_units() -> None:
    policy, data = make(denoiser=partial(Constant, 0.0)), batch()
    normalized = policy.normalizer.normalize("action", data["action"])
    torch.testing.assert_close(policy.loss(data, seeded()), normalized.square().mean())


def test_noise_samples_encode_once_and_draw_levels_from_the_grid() -> None:
    policy = make(denoiser=partial(Constant, 0.0), noise_samples=50)
    encodings = []
    policy.encoder.register_forward_hook(lambda *_: encodings.append(1))
    policy.loss(batch(), seeded())
    (level,) = constant(policy).levels
    assert len(encodings) == 1
    assert level.shape == (150, 1)
    ticks = level * 100
    torch.testing.assert_close(ticks, ticks.round())
    assert 1 <= ticks.min() < 10
    assert 90 < ticks.max() <= 100


def test_levels_of_a_batch_are_spread_evenly_and_those_of_a_window_too() -> None:
    policy = make(denoiser=partial(Constant, 0.0), noise_samples=4)
    for seed in range(5):
        policy.loss(batch(), seeded(seed))
    for level in constant(policy).levels:
        windows = level.reshape(4, 3).T.sort().values  # (B, draws)
        assert (windows.diff() - 0.25).abs().max() < 0.011  # the grid has steps of 0.01
    assert len({float(level[0]) for level in constant(policy).levels}) > 1


def test_a_level_power_below_one_trains_more_on_noise() -> None:
    policy = make(denoiser=partial(Constant, 0.0), noise_samples=100, level_power=0.5)
    policy.loss(batch(), seeded())
    (level,) = constant(policy).levels
    assert level.mean() == pytest.approx(2 / 3, abs=0.01)  # of the root of a uniform one
    assert (level < 0.5).float().mean() == pytest.approx(0.25, abs=0.02)


def test_loss_repeats_with_the_same_generator() -> None:
    policy, data = make(), batch()
    assert torch.equal(policy.loss(data, seeded(1)), policy.loss(data, seeded(1)))
    assert not torch.equal(policy.loss(data, seeded(1)), policy.loss(data, seeded(2)))


@pytest.mark.parametrize("parameterization", [Epsilon(), X0(), V()])
@pytest.mark.parametrize("schedule", [CosineSchedule(), LinearSchedule(100), FlowSchedule()])
@pytest.mark.parametrize("sampler", [DDIM(), DDPM(), DPMSolverPP2M()])
def test_every_combination_solves_within_bounds(
    parameterization: Parameterization, schedule: Schedule, sampler: Sampler
) -> None:
    policy = make(parameterization=parameterization, schedule=schedule, sampler=sampler)
    actions = policy.sample(batch()["obs"], 5, generator=seeded())
    assert actions.shape == (3, 4, 2)
    assert actions.isfinite().all()
    assert (actions >= policy.low).all()
    assert (actions <= policy.high).all()


def test_a_step_is_one_evaluation_and_there_is_always_a_chunk() -> None:
    policy = make(denoiser=partial(Constant, 0.5))
    state = policy.begin(policy.encode(batch()["obs"]), num_steps=4, generator=seeded())
    assert policy.actions(state).shape == (3, 4, 2)
    for nfe in range(1, 5):
        assert not state.done
        state = policy.step(state)
        assert constant(policy).calls == state.nfe == nfe
        expected = policy.normalizer.unnormalize("action", torch.full((3, 4, 2), 0.5))
        torch.testing.assert_close(policy.actions(state), expected)
    assert state.done
    torch.testing.assert_close(state.x, state.x0)
    levels = torch.stack(constant(policy).levels)[:, 0, 0]
    torch.testing.assert_close(levels, torch.tensor([1.0, 0.75, 0.5, 0.25]))
    with pytest.raises(ValueError, match="done after 4 steps"):
        policy.step(state)


def test_solving_leaves_policy_and_earlier_states_untouched() -> None:
    policy = make()
    context = policy.encode(batch()["obs"])
    weights = {name: value.clone() for name, value in policy.state_dict().items()}
    first = policy.begin(context, num_steps=3, generator=seeded())
    x = first.x.clone()
    second = policy.step(first)
    torch.testing.assert_close(policy.step(first).x, second.x)
    assert torch.equal(first.x, x)
    assert all(torch.equal(value, weights[name]) for name, value in policy.state_dict().items())


def test_warm_start_at_full_noise_is_a_cold_start() -> None:
    policy, obs = make(schedule=FlowSchedule()), batch()["obs"]
    prior = torch.full((3, 4, 2), 0.005)
    warm = policy.sample(obs, 3, prior=prior, generator=seeded())
    torch.testing.assert_close(warm, policy.sample(obs, 3, generator=seeded()))


def test_a_prior_travels_through_network_units_unchanged() -> None:
    policy = make()
    prior = torch.rand(3, 4, 2) * 0.01
    state = policy.begin(
        policy.encode(batch()["obs"]), num_steps=1, start_level=0.3, prior=prior, warm_start=AsIs()
    )
    torch.testing.assert_close(policy.actions(state), prior)
    torch.testing.assert_close(state.x, policy.normalizer.normalize("action", prior))
    assert state.levels == (0.3, 0.0)


def test_warm_start_needs_a_prior_of_the_right_shape() -> None:
    policy = make()
    context = policy.encode(batch()["obs"])
    with pytest.raises(ValueError, match=r"start_level 0.3 needs a prior"):
        policy.begin(context, num_steps=1, start_level=0.3)
    with pytest.raises(ValueError, match=r"shape \(3, 5, 2\), wanted \(3, 4, 2\)"):
        policy.begin(context, num_steps=1, start_level=0.3, prior=torch.zeros(3, 5, 2))


def test_estimates_are_clipped_a_little_beyond_the_demonstrations() -> None:
    policy = make(denoiser=partial(Constant, 7.0))
    state = policy.step(policy.begin(policy.encode(batch()["obs"]), num_steps=2))
    assert state.x0.max() == pytest.approx(1.1)


def test_samples_repeat_with_the_same_generator_and_are_free_of_gradients() -> None:
    policy, obs = make(sampler=DDPM()), batch()["obs"]
    first = policy.sample(obs, 4, generator=seeded(1))
    assert torch.equal(first, policy.sample(obs, 4, generator=seeded(1)))
    assert not torch.equal(first, policy.sample(obs, 4, generator=seeded(2)))
    assert not first.requires_grad


def test_steps_can_be_differentiated_for_guidance() -> None:
    policy = make()
    state = policy.begin(policy.encode(batch()["obs"]).detach(), num_steps=2)
    x = state.x.requires_grad_()
    policy.step(replace(state, x=x)).x0.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.any()


def test_the_state_dict_carries_the_normalizer_and_nothing_but_tensors() -> None:
    trained = make()
    weights = trained.state_dict()
    assert all(isinstance(value, Tensor) for value in weights.values())
    assert "normalizer.transforms.action.center" in weights
    fresh = make(normalizer=None)
    with pytest.raises(ValueError, match="no limits"):
        fresh.loss(batch())
    fresh.load_state_dict(weights)
    obs = batch()["obs"]
    expected = trained.sample(obs, 3, generator=seeded())
    assert torch.equal(fresh.sample(obs, 3, generator=seeded()), expected)


def test_the_policy_asks_only_for_what_it_encodes() -> None:
    policy, data = make(), batch()
    assert sorted(policy.spec.obs) == ["camera", "pose", "wrench"]
    del data["obs"]["unused"]
    assert policy.loss(data).isfinite()


def test_a_normalizer_without_a_needed_key_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lacks \['transforms.pose.center'"):
        make(normalizer=Normalizer.fit(STATS, SPEC.select(["wrench"])))


def test_training_drives_samples_to_the_demonstrated_chunk() -> None:
    unet = partial(UNet1d, down_dims=(16, 32), condition_dim=16)
    policy = make(denoiser=unet, noise_samples=8).train()
    data = batch(4)
    data["action"] = data["obs"]["pose"][:, -1:, :2].expand(-1, 4, -1) * 0.01
    optimizer = torch.optim.Adam(policy.parameters(), 5e-3)
    noise = seeded()
    for _ in range(40):
        optimizer.zero_grad()
        policy.loss(data, noise).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    actions = policy.eval().sample(data["obs"], 5, generator=noise)
    error = policy.normalizer.normalize("action", actions)
    error = error - policy.normalizer.normalize("action", data["action"])
    assert error.square().mean().sqrt() < 0.25
