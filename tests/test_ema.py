"""Averaged weights."""

import pytest
import torch
from torch import nn

from policy.ema import EMA


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def train(net: nn.Module, ema: EMA, steps: int) -> None:
    for _ in range(steps):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(torch.randn_like(parameter))
        ema.update(net)


def test_the_average_follows_the_recursion_with_warm_up() -> None:
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    ema, expected = EMA(net, decay=0.5), 0.0
    for step in range(20):
        nn.init.constant_(net.weight, step + 1.0)
        ema.update(net)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * (step + 1)
    assert ema.weights(net)["weight"].item() == pytest.approx(expected, rel=1e-5)


def test_resuming_from_the_state_changes_nothing() -> None:
    net = model()
    whole, first = EMA(net), EMA(net)
    for _ in range(3):
        train(net, whole, 1)
        first.update(net)
    resumed = EMA(model())
    resumed.load_state_dict(first.state_dict())
    for _ in range(3):
        train(net, whole, 1)
        resumed.update(net)
    assert resumed.state_dict()["step"] == 6
    for name, value in whole.state_dict()["average"].items():
        assert torch.equal(resumed.state_dict()["average"][name], value)


def test_a_saved_state_does_not_move_on() -> None:
    net = model()
    ema = EMA(net)
    saved = ema.state_dict()["average"]["0.weight"]
    before = saved.clone()
    train(net, ema, 2)
    assert torch.equal(saved, before)


def test_weights_hold_averages_and_the_buffers_of_the_model() -> None:
    net = model()
    ema = EMA(net)
    train(net, ema, 2)
    net(torch.randn(8, 3))
    weights, target = ema.weights(net), model()
    target.load_state_dict(weights)
    assert torch.equal(weights["1.running_mean"], net.state_dict()["1.running_mean"])
    ema.copy_to(net)
    for name, value in net.state_dict().items():
        assert torch.equal(value, weights[name])


def test_the_state_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"they differ in .*weight"):
        EMA(model()).load_state_dict(EMA(nn.Linear(2, 2)).state_dict())
