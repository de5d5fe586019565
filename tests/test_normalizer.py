"""Network units: ranges, floors, round trips, and travel through a state dict."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data.spec import ActionSpec, DataSpec, ObsSpec
from policy.normalizer import ACTION_FLOOR, Normalizer

SPEC = DataSpec(
    obs={
        "camera": ObsSpec((8, 8, 3), "image", "", 10),
        "pose": ObsSpec((3,), "state", "m", 10),
        "wrench": ObsSpec((6,), "wrench", "N, N m", 100),
    },
    action=ActionSpec(("dx", "dy"), ("m", "m"), (-1.0, -1.0), (1.0, 1.0)),
    rate_hz=10,
)


@dataclass(frozen=True)
class Range:
    min: NDArray[np.float64]
    max: NDArray[np.float64]


STATS = {
    "pose": Range(np.array([-1.0, 0.0, 2.0]), np.array([3.0, 0.5, 2.0])),
    "action": Range(np.array([-0.002, 0.5]), np.array([0.004, 0.5])),
}


@pytest.mark.parametrize("key", ["pose", "wrench", "action", "camera"])
def test_unnormalize_inverts_normalize(key: str) -> None:
    normalizer = Normalizer.fit(STATS, SPEC)
    size = {"pose": 3, "wrench": 6, "action": 2, "camera": 3}[key]
    x = torch.randn(5, 4, size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(normalizer.unnormalize(key, normalizer.normalize(key, x)), x)


def test_limits_map_to_plus_and_minus_one() -> None:
    normalizer = Normalizer.fit(STATS, SPEC)
    low = normalizer.normalize("pose", torch.tensor([-1.0, 0.0, 2.0]))
    high = normalizer.normalize("pose", torch.tensor([3.0, 0.5, 2.0]))
    torch.testing.assert_close(low, torch.tensor([-1.0, -1.0, 0.0]))
    torch.testing.assert_close(high, torch.tensor([1.0, 1.0, 0.0]))


def test_constant_action_maps_to_zero_and_zero_back_to_the_constant() -> None:
    normalizer = Normalizer.fit(STATS, SPEC)
    assert normalizer.normalize("action", torch.tensor([0.0, 0.5]))[1] == 0
    assert normalizer.unnormalize("action", torch.zeros(2))[1] == 0.5
    # Even a network that errs by 1 moves a constant dimension by half the floor at most.
    error = normalizer.unnormalize("action", torch.ones(2))[1] - 0.5
    assert 0 <= error <= 0.51 * ACTION_FLOOR


def test_wrench_is_odd_monotone_and_readable_from_contact_to_impact() -> None:
    normalizer = Normalizer(SPEC)
    forces = torch.tensor([-50.0, -1.4, -0.85, 0.0, 0.85, 1.4, 50.0])
    y = normalizer.normalize("wrench", forces[:, None].repeat(1, 6))[:, 0]
    assert (y.diff() > 0).all()
    torch.testing.assert_close(y, -y.flip(0))
    assert y[-1] < 2.5
    assert y[5] - y[4] > 0.1


def test_images_become_floats_between_minus_one_and_one() -> None:
    pixels = torch.tensor([0, 255], dtype=torch.uint8)
    assert Normalizer(SPEC).normalize("camera", pixels).tolist() == [-1.0, 1.0]


def test_a_new_normalizer_takes_everything_from_a_state_dict() -> None:
    fitted, fresh = Normalizer.fit(STATS, SPEC), Normalizer(SPEC)
    with pytest.raises(ValueError, match="no limits for 'pose' yet"):
        fresh.check_fitted()
    fresh.load_state_dict(fitted.state_dict())
    fresh.check_fitted()
    x = torch.randn(7, 3)
    assert torch.equal(fresh.normalize("pose", x), fitted.normalize("pose", x))


def test_missing_or_misshapen_statistics_are_refused() -> None:
    with pytest.raises(ValueError, match="Statistics for 'pose' are missing"):
        Normalizer.fit({"action": STATS["action"]}, SPEC)
    with pytest.raises(ValueError, match=r"wanted shape \(3,\)"):
        Normalizer.fit({**STATS, "pose": STATS["action"]}, SPEC)


def test_unknown_key_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"known: .*'wrench'"):
        Normalizer(SPEC).normalize("torque", torch.zeros(6))


def test_companding_keeps_zero_and_gives_small_increments_most_of_the_range() -> None:
    normalizer = Normalizer.fit(STATS, SPEC, companding=20.0)
    x = torch.tensor([[-0.002, 0.5], [0.0, 0.5], [0.0002, 0.5], [0.004, 0.5]])
    y = normalizer.normalize("action", x)[:, 0]
    assert y[1] == 0
    assert y[3] == 1
    assert y[2] > 0.2, "a twentieth of the range fills more than a fifth of it"
    assert (y.diff() > 0).all()
    torch.testing.assert_close(
        normalizer.unnormalize("action", normalizer.normalize("action", x)), x
    )


def test_companding_leaves_dimensions_away_from_zero_linear() -> None:
    stats = {**STATS, "action": Range(np.array([0.99, -1.0]), np.array([1.0, 1.0]))}
    normalizer = Normalizer.fit(stats, SPEC, companding=20.0)
    y = normalizer.normalize("action", torch.tensor([[0.99, 0.0], [0.995, 0.0], [1.0, 0.0]]))[:, 0]
    torch.testing.assert_close(y, torch.tensor([-1.0, 0.0, 1.0]), atol=1e-4, rtol=0)


def test_negative_companding_is_refused() -> None:
    with pytest.raises(ValueError, match="companding must be above 0, got -1"):
        Normalizer(SPEC, companding=-1.0)
