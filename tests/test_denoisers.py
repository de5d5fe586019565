"""Denoisers: levels per action, zero at birth, and able to learn."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from policy.denoisers import DiffusionTransformer, UNet1d
from policy.denoisers.embedding import LevelEmbedding

DENOISERS: dict[str, Callable[..., nn.Module]] = {
    "transformer": partial(DiffusionTransformer, width=32, num_layers=2, num_heads=2),
    "one action per token": partial(
        DiffusionTransformer, width=32, num_layers=2, num_heads=2, actions_per_token=1
    ),
    "unet": partial(UNet1d, down_dims=(16, 32), condition_dim=16),
}
B, TP, A, N, D = 3, 8, 5, 2, 6


def build(name: str, awake: bool = True) -> nn.Module:
    """A denoiser; `awake` gives its zero-initialised weights values, as training would."""
    torch.manual_seed(0)
    model = DENOISERS[name](action_dim=A, pred_horizon=TP, context_dim=N * D)
    if awake:
        for parameter in model.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.2)
    return model.eval()


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(B, TP, A), torch.rand(B, TP), torch.randn(B, N, D)


@pytest.mark.parametrize("name", DENOISERS)
def test_a_new_denoiser_says_zero(name: str) -> None:
    out = build(name, awake=False)(*inputs())
    assert out.shape == (B, TP, A)
    assert not out.any()


@pytest.mark.parametrize("name", DENOISERS)
def test_one_level_for_the_chunk_is_that_level_for_every_action(name: str) -> None:
    model, (x, level, context) = build(name), inputs()
    common = level[:, :1]
    torch.testing.assert_close(
        model(x, common, context), model(x, common.expand(B, TP), context), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("name", DENOISERS)
def test_the_level_of_every_single_action_matters(name: str) -> None:
    model, (x, level, context) = build(name), inputs()
    out = model(x, level, context)
    for action in range(TP):
        changed = level.clone()
        changed[:, action] = 1 - changed[:, action]
        assert (model(x, changed, context) - out).abs().amax((1, 2)).min() > 1e-6


@pytest.mark.parametrize("name", DENOISERS)
def test_levels_of_two_neighbouring_actions_are_told_apart(name: str) -> None:
    model, (x, level, context) = build(name), inputs()
    swapped = level[:, [1, 0, *range(2, TP)]]
    assert (model(x, swapped, context) - model(x, level, context)).abs().max() > 1e-6


@pytest.mark.parametrize("name", DENOISERS)
def test_context_and_order_of_actions_matter(name: str) -> None:
    model, (x, level, context) = build(name), inputs()
    level = level[:, :1]
    out = model(x, level, context)
    assert (model(x, level, context.flip(1)) - out).abs().max() > 1e-6
    assert (model(x.flip(1), level, context).flip(1) - out).abs().max() > 1e-6


@pytest.mark.parametrize("name", DENOISERS)
def test_samples_of_a_batch_do_not_mix(name: str) -> None:
    model, (x, level, context) = build(name), inputs()
    alone = model(x[1:2], level[1:2], context[1:2])
    torch.testing.assert_close(model(x, level, context)[1:2], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", DENOISERS)
def test_every_weight_gets_a_gradient_once_awake(name: str) -> None:
    model = build(name).train()
    (model(*inputs()) * torch.randn(B, TP, A)).sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("name", DENOISERS)
def test_it_learns_to_copy_what_the_context_says(name: str) -> None:
    model = build(name, awake=False).train()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    context = torch.randn(64, N, D)
    target = context.flatten(1)[:, :A, None].expand(-1, A, TP).transpose(1, 2).tanh()
    losses = []
    for _ in range(80):
        optimizer.zero_grad()
        out = model(torch.randn(64, TP, A), torch.ones(64, 1), context)
        loss = (out - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]


def test_neighbouring_grid_levels_have_different_embeddings() -> None:
    levels = torch.linspace(0, 1, 101)
    waves = LevelEmbedding(32)(levels[None])[0]
    distances = torch.cdist(waves, waves)
    distances.fill_diagonal_(torch.inf)
    assert distances.min() > 0.1


def test_misfitting_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="must divide pred_horizon"):
        DiffusionTransformer(A, 7, D)
    with pytest.raises(ValueError, match="multiple of 4 with 3 resolutions"):
        UNet1d(A, 6, D)
    with pytest.raises(ValueError, match="dim must be even"):
        LevelEmbedding(7)
