from __future__ import annotations

from typing import Any

import pytest

from policy.config import TrainConfig


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"lr": 0.0},
        {"ema_decay": 1.0},
        {"mixed_precision": "fp8"},
        {"betas": (0.9,)},
        {"threads": -1},
    ],
)
def test_setting_out_of_range_is_named(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=rf"train\.{name} must be"):
        TrainConfig(**wrong)


def test_learning_rate_rises_linearly_then_falls_to_zero() -> None:
    config = TrainConfig(steps=100, warmup_steps=9, lr=1.0)
    assert [config.lr_at(step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert config.lr_at(9 + 91 // 2) == pytest.approx(0.5, abs=0.01)
    assert config.lr_at(100) == pytest.approx(0.0, abs=1e-12)
    rates = [config.lr_at(step) for step in range(9, 101)]
    assert rates == sorted(rates, reverse=True)
