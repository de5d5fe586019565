"""Limits follow from counted work and measured peaks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import prise
from data.results import read_results
from deploy.bench.engine import zero_batch
from deploy.bench.forward import forward_ms
from deploy.bench.limits import Cost, Limits, count_cost
from envs.pry.env import pry_spec
from tests.tiny_camera import camera_policy
from tests.tiny_store import write_store

ROUND = Limits(gemm=100.0, conv=50.0, bandwidth=10.0)


def test_compute_binds_where_operations_take_longer_than_bytes() -> None:
    assert ROUND.seconds(Cost(gemm=200, conv=100, bytes=30)) == pytest.approx(4.0)
    assert ROUND.seconds(Cost(gemm=200, conv=100, bytes=50)) == pytest.approx(5.0)


def test_matrix_products_and_convolutions_are_counted_apart() -> None:
    a, b = torch.rand(3, 5), torch.rand(5, 7)
    x, weight = torch.rand(2, 4, 6, 6), torch.rand(8, 4, 3, 3)
    cost = count_cost(lambda: (a @ b, F.conv2d(x, weight, padding=1)), [a, b], times=2.0)
    assert cost.gemm == 2 * 3 * 5 * 7
    assert cost.conv == 2 * (2 * 8 * 6 * 6) * (4 * 3 * 3)
    assert cost.bytes == 2 * 4 * (3 * 5 + 5 * 7)


def test_the_backward_pass_is_counted() -> None:
    weight, x = torch.rand(5, 7, requires_grad=True), torch.rand(3, 5, requires_grad=True)
    cost = count_cost(lambda: torch.autograd.backward((x @ weight).sum()), [])
    assert cost.gemm == 3 * 2 * 3 * 5 * 7


def test_the_forward_pass_is_divided_among_its_parts() -> None:
    policy = camera_policy().requires_grad_(True)
    parts = forward_ms(policy, zero_batch(policy, 4), rounds=3)
    assert parts.keys() == {"augment", "encode", "denoise", "other", "all"}
    assert min(parts.values()) > 0
    shares = sum(value for part, value in parts.items() if part != "all") / parts["all"]
    assert shares == pytest.approx(1, abs=0.5)  # medians of three
    assert not policy.encoder._forward_hooks  # none is left behind


def test_engine_command_holds_both_networks_against_their_limits(tmp_path: Path) -> None:
    demos = write_store(tmp_path / "demos.zarr", [9, 8], pry_spec(32, ("wrist",))).path
    arguments = ["encoder=force", "denoiser.width=32", "steps=4", "train.log_every=1"]
    arguments += ["train.batch_size=4", "train.threads=1", f"dataset.path={demos}"]
    assert prise.main(["bench", "engine", *arguments, f"out={tmp_path}"]) == 0
    rows = read_results(tmp_path / "results.json").rows
    ratios = {
        (row.context["part"], row.context["denoiser"]): row.value
        for row in rows
        if row.name == "limit_ratio"
    }
    assert {("train_unet", "unet"), ("train_transformer", "transformer")} < ratios.keys()
    assert {("tick", "unet"), ("tick", "transformer")} < ratios.keys()
    steps = {row.context["part"] for row in rows if row.name == "step_ms"}
    assert steps == {"load", "copy", "forward", "backward", "optimizer", "ema", "log", "all"}
    assert "encode" in {row.context["part"] for row in rows if row.name == "forward_ms"}
    # Nothing can be faster than the hardware; a small excess is noise in its measured peak.
    assert all(0 < ratio < 1.3 for ratio in ratios.values()), ratios
    assert (tmp_path / "engine.png").stat().st_size > 1000
