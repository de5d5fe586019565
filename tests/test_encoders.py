"""Encoders and fusions: shapes, causality, crops, and who listens to whom."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from data.spec import ActionSpec, DataSpec, Horizons, ObsSpec, SpecError
from policy.encoders import (
    CausalConvEncoder,
    Concat,
    CrossAttention,
    Gated,
    ObsEncoder,
    ResNet18,
    SmallResNet,
    StateMLP,
    TokenSpec,
)
from policy.encoders.vision import KeypointHead, Pool

CAMERA = ObsSpec((32, 48, 3), "image", "", 10)
POSE = ObsSpec((9,), "state", "m", 10)
WRENCH = ObsSpec((6,), "wrench", "N, N m", 100)
SPEC = DataSpec(
    obs={"camera": CAMERA, "pose": POSE, "wrench": WRENCH},
    action=ActionSpec(("dx",), ("m",), (-1.0,), (1.0,)),
    rate_hz=10,
)
HORIZONS = Horizons(obs=2, pred=8, window=32)


def batch(size: int = 3) -> dict[str, Tensor]:
    return {
        "camera": torch.randn(size, 2, 32, 48, 3),
        "pose": torch.randn(size, 2, 9),
        "wrench": torch.randn(size, 32, 6),
    }


def encoder(fusion: Callable[..., nn.Module], pool: Pool = "spatial_softmax") -> ObsEncoder:
    torch.manual_seed(0)
    encoders: dict[str, Callable[..., nn.Module]] = {
        "camera": partial(SmallResNet, pool=pool, channels=(8, 16)),
        "pose": StateMLP,
        "wrench": CausalConvEncoder,
    }
    return ObsEncoder(SPEC, HORIZONS, encoders, fusion).eval()


@pytest.mark.parametrize("pool", ["spatial_softmax", "tokens"])
@pytest.mark.parametrize("fusion", [Concat, Gated, CrossAttention])
def test_context_has_the_promised_shape_and_every_key_moves_it(
    fusion: Callable[..., nn.Module], pool: Pool
) -> None:
    model, obs = encoder(fusion, pool), batch()
    context = model(obs)
    assert context.shape == (3, model.num_tokens, model.dim)
    assert model.context_dim == context[0].numel()
    for key, value in obs.items():
        changed = model({**obs, key: value + torch.randn_like(value)})
        assert (changed - context).abs().amax((1, 2)).min() > 1e-5, key


@pytest.mark.parametrize("fusion", [Concat, Gated, CrossAttention])
def test_every_weight_gets_a_gradient(fusion: Callable[..., nn.Module]) -> None:
    model = encoder(fusion, "tokens" if fusion is CrossAttention else "spatial_softmax").train()
    (model(batch()) * torch.randn(1, 1, model.dim)).sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # A bias added to every attention logit of a query changes nothing.
    assert [name for name in silent if "to_key_value" not in name] == []


def test_samples_of_a_batch_do_not_mix() -> None:
    model, obs = encoder(Concat), batch()
    alone = model({key: value[1:2] for key, value in obs.items()})
    torch.testing.assert_close(model(obs)[1:2], alone, atol=1e-5, rtol=1e-4)


def test_force_features_never_see_the_future() -> None:
    model, seen = CausalConvEncoder(WRENCH, HORIZONS), []
    model.convs[-1].register_forward_hook(lambda _module, _inputs, out: seen.append(out))
    x = torch.randn(1, 32, 6)
    changed = x.clone()
    changed[:, 24:] += 1
    model(x)
    model(changed)
    features, later = seen
    assert features.shape[-1] == 4  # One per eight samples.
    assert torch.equal(features[..., :3], later[..., :3])
    assert not torch.equal(features[..., 3], later[..., 3])


@pytest.mark.parametrize("window", [1, 5, 31, 32])
def test_the_newest_force_sample_matters_whatever_the_window(window: int) -> None:
    torch.manual_seed(0)
    model = CausalConvEncoder(WRENCH, Horizons(window=window))
    x = torch.randn(2, window, 6)
    changed = x.clone()
    changed[:, -1] += 1
    assert model(x).shape == (2, 1, model.dim)
    assert (model(x) - model(changed)).abs().max() > 1e-3


def test_the_moment_of_a_force_drop_is_readable() -> None:
    torch.manual_seed(0)
    count, window = 256, 32
    drops = torch.randint(0, window, (count,))
    load = torch.where(torch.arange(window) < drops[:, None], 1.4, 0.85)
    x = load[..., None].repeat(1, 1, 6) + 0.05 * torch.randn(count, window, 6)
    model = nn.Sequential(CausalConvEncoder(WRENCH, HORIZONS), nn.Flatten(), nn.Linear(64, 1))
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = (model(x)[:, 0] - drops / window).square().mean()
        loss.backward()
        optimizer.step()
    assert loss.sqrt() < 1.5 / window  # Within one and a half samples, 15 ms.


def test_crops_are_random_per_window_in_training_and_central_otherwise() -> None:
    model = SmallResNet(CAMERA, HORIZONS, crop=0.75)
    x = torch.arange(32.0)[:, None] + 100 * torch.arange(48.0)
    x = x[None, None, ..., None].expand(64, 2, 32, 48, 3)
    crops, shift = model.train()._crop(x)
    assert shift is not None
    corners = crops[:, :, 0, 0, 0]
    assert torch.equal(corners[:, 0], corners[:, 1])  # One draw for all frames of a window.
    assert len(set(corners[:, 0].tolist())) > 30
    top, left = corners[:, 0] % 100, corners[:, 0] // 100
    torch.testing.assert_close(shift[::2, 0, 0], (left - 6) * 2 / 48)
    torch.testing.assert_close(shift[::2, 0, 1], (top - 4) * 2 / 32)
    central, none = model.eval()._crop(x)
    assert none is None
    assert central[0, 0, 0, 0, 0] == 4 + 100 * 6


def test_keypoints_are_in_coordinates_of_the_whole_image() -> None:
    model = SmallResNet(CAMERA, HORIZONS, crop=0.75)
    assert isinstance(model.head, KeypointHead)
    places = model.head.places
    # The first cell is centred on the crop's first pixel: row 4, column 6 of the image.
    torch.testing.assert_close(places[0], torch.tensor([(6.5 - 24) / 24, (4.5 - 16) / 16]))
    # The next column is one stride, four pixels, on.
    torch.testing.assert_close(places[1] - places[0], torch.tensor([4 / 24, 0.0]))


def test_images_are_convolved_without_reordering() -> None:
    frames = torch.randint(0, 255, (2, 2, 32, 48, 3), dtype=torch.uint8) / 127.5 - 1
    model = SmallResNet(CAMERA, HORIZONS, crop=1.0).eval()
    crops, _ = model._crop(frames)
    images = crops.flatten(0, 1).permute(0, 3, 1, 2)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert model.trunk(images).is_contiguous(memory_format=torch.channels_last)


def test_the_gate_chooses_between_wrench_and_no_contact() -> None:
    tokens = {"pose": TokenSpec("state", 1, 4), "wrench": TokenSpec("wrench", 1, 4)}
    model = Gated(tokens, hidden=8, dim=4)
    nn.init.normal_(model.no_contact["wrench"])
    values = {"pose": torch.randn(2, 1, 4), "wrench": torch.randn(2, 1, 4)}
    last = model.gate[2]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, 50.0)
    torch.testing.assert_close(model(values), model.concat(values))
    nn.init.constant_(last.bias, -50.0)
    empty = model.no_contact["wrench"].expand(2, 1, 4)
    torch.testing.assert_close(model(values), model.concat({**values, "wrench": empty}))


def test_cross_attention_knows_places() -> None:
    model = encoder(CrossAttention, "tokens").fusion
    torch.manual_seed(0)
    tokens = {
        "camera": torch.randn(2, 48, 64),
        "pose": torch.randn(2, 1, 64),
        "wrench": torch.randn(2, 1, 64),
    }
    swapped = {**tokens, "camera": tokens["camera"].flip(1)}
    assert (model(tokens) - model(swapped)).abs().max() > 1e-6
    assert model(tokens).shape == (2, 2, 64)


def test_encoding_does_not_need_keys_without_an_encoder() -> None:
    model = ObsEncoder(SPEC, HORIZONS, {"pose": StateMLP}, Concat)
    assert model({"pose": torch.randn(2, 2, 9)}).shape == (2, 1, 128)


def test_wrong_combinations_are_refused_with_a_way_out() -> None:
    with pytest.raises(SpecError, match=r"\['torque'\] wanted"):
        ObsEncoder(SPEC, HORIZONS, {"torque": StateMLP}, Concat)
    with pytest.raises(ValueError, match="use Concat without one"):
        ObsEncoder(SPEC, HORIZONS, {"pose": StateMLP}, Gated)
    with pytest.raises(ValueError, match="needs an image"):
        ObsEncoder(SPEC, HORIZONS, {"pose": StateMLP}, CrossAttention)
    with pytest.raises(ValueError, match=r"crop in \(0, 1\]"):
        SmallResNet(CAMERA, HORIZONS, crop=1.5)
    with pytest.raises(ValueError, match="No encoder given"):
        ObsEncoder(SPEC, HORIZONS, {}, Concat)


def test_resnet18_has_the_published_number_of_convolution_weights() -> None:
    camera = ObsSpec((96, 96, 3), "image", "", 10)
    model = ResNet18(camera, Horizons(obs=2))
    # He et al. 2016: 11.69 M parameters, of which 0.51 M classify.
    assert sum(p.numel() for p in model.trunk.parameters()) == 11_176_512
    with torch.no_grad():
        assert model.trunk(torch.zeros(1, 3, 86, 86)).shape == (1, 512, 3, 3)
        assert model(torch.zeros(2, 2, 96, 96, 3)).shape == (2, 2, 64)


def test_importing_a_policy_loads_no_triton() -> None:
    """It crashes in a process that has rendered with OSMesa: the demo's, for one."""
    code = "import sys, policy.export, deploy.agent; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
