"""Encoder of camera images."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.spec import Horizons, ObsSpec
from policy.encoders.obs_encoder import ObsEncoder

Pool = Literal["spatial_softmax", "tokens"]


class CameraEncoder(nn.Module):
    """A convolutional trunk and a head that makes tokens; all To frames of a camera in one batch.

    With pool "spatial_softmax" a frame gives one token of keypoints and a coarse global feature;
    with "tokens" one token per patch, for a fusion that attends to places.

    In training one random crop is drawn per window (from torch's default generator) and used for
    all its frames, otherwise the crop is central. Keypoints are in coordinates of the whole image,
    so that cropping does not blur where things are.

    Args:
        spec: Of the camera.
        horizons: Frames per window.
        trunk: Images (B, C, h, w) to features; every layer that halves pads by half its kernel.
        crop: Side of the crop, as a fraction of the image's.
        pool: How a feature map becomes tokens.
        num_keypoints: Of the spatial softmax.
        dim: Of a token.
    """

    def __init__(
        self,
        spec: ObsSpec,
        horizons: Horizons,
        trunk: nn.Module,
        crop: float,
        pool: Pool,
        num_keypoints: int,
        dim: int,
    ) -> None:
        super().__init__()
        if len(spec.shape) != 3 or not 0 < crop <= 1 or pool not in get_args(Pool):
            raise ValueError(
                f"An image (H, W, C), a crop in (0, 1] and a pool of {get_args(Pool)} wanted, "
                f"got shape {spec.shape}, crop {crop}, pool {pool!r}."
            )
        self.size = (spec.shape[0], spec.shape[1])
        self.crop = (round(self.size[0] * crop), round(self.size[1] * crop))
        self.trunk = trunk
        with torch.no_grad():
            features = self.trunk(torch.zeros(1, spec.shape[2], *self.crop))
        channels, grid = int(features.shape[1]), (int(features.shape[2]), int(features.shape[3]))
        self.head: KeypointHead | PatchHead
        if pool == "spatial_softmax":
            # The trunk halves a few times, rounding up.
            stride = 2 ** math.ceil(math.log2(max(self.crop) / max(grid)))
            self.head = KeypointHead(channels, self._places(grid, stride), num_keypoints, dim)
        else:
            self.head = PatchHead(channels, grid, dim)
        self.num_tokens, self.dim = horizons.obs * self.head.num_tokens, dim
        # Images arrive as (H, W, C): with channels last they are convolved without reordering.
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B, To, H, W, C) to tokens (B, To * n, dim)."""
        return self.frames(x).reshape(x.shape[0], self.num_tokens, self.dim)

    def frames(self, x: Tensor) -> Tensor:
        """Normalised images (B, F, H, W, C), any number F, to tokens (B * F, n, dim).

        Outside of training a frame's tokens do not depend on its window.
        """
        crops, shift = self._crop(x)
        features = self.trunk(crops.flatten(0, 1).permute(0, 3, 1, 2))
        tokens: Tensor = self.head(features, shift)
        return tokens

    def _crop(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Crops (B, To, h, w, C) and, in training, how far they are off centre (B * To, 1, 2)."""
        (height, width), (rows, columns) = self.size, self.crop
        spare_rows, spare_columns = height - rows, width - columns
        if not self.training:
            top, left = spare_rows // 2, spare_columns // 2
            return x[:, :, top : top + rows, left : left + columns], None
        tops = torch.randint(spare_rows + 1, (x.shape[0],))
        lefts = torch.randint(spare_columns + 1, (x.shape[0],))
        crops = torch.stack(
            [
                frames[:, top : top + rows, left : left + columns]
                for frames, top, left in zip(x, tops.tolist(), lefts.tolist(), strict=True)
            ]
        )
        right = (2 * lefts - spare_columns) / width
        down = (2 * tops - spare_rows) / height
        shift = torch.stack([right, down], 1).to(x.device)  # (B, 2)
        return crops, shift.repeat_interleave(x.shape[1], 0)[:, None]

    def _places(self, grid: tuple[int, int], stride: int) -> Tensor:
        """Where cells of the feature map lie in the image, for a central crop (h * w, 2)."""
        rows, columns = (
            (2 * stride * torch.arange(cells) + 1 - crop) / size
            for cells, crop, size in zip(grid, self.crop, self.size, strict=True)
        )
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        return torch.stack([x.flatten(), y.flatten()], 1)


def camera_encoders(encoder: nn.Module) -> dict[str, CameraEncoder]:
    """Encoders of `encoder` that work frame by frame; an exported one is a graph for all keys."""
    if not isinstance(encoder, ObsEncoder):
        return {}
    return {
        key: module for key, module in encoder.encoders.items() if isinstance(module, CameraEncoder)
    }


class SmallResNet(CameraEncoder):
    """A few strided stages with residual blocks.

    Args:
        spec: Of the camera.
        horizons: Frames per window.
        crop: Side of the crop, as a fraction of the image's.
        channels: Of the stem and of each stage; every one halves the resolution.
        blocks: Residual blocks per stage.
        pool: "spatial_softmax" or "tokens".
        num_keypoints: Of the spatial softmax.
        dim: Of a token.
    """

    def __init__(
        self,
        spec: ObsSpec,
        horizons: Horizons,
        crop: float = 0.9375,
        channels: tuple[int, ...] = (24, 32),
        blocks: int = 1,
        pool: Pool = "spatial_softmax",
        num_keypoints: int = 24,
        dim: int = 64,
    ) -> None:
        layers: list[nn.Module] = [_conv(spec.shape[-1], channels[0], kernel_size=5)]
        for before, after in pairwise(channels):
            layers.append(_conv(before, after, kernel_size=3))
            layers += [ResidualBlock(after) for _ in range(blocks)]
        super().__init__(spec, horizons, nn.Sequential(*layers), crop, pool, num_keypoints, dim)


class ResidualBlock(nn.Module):
    """x + two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels, kernel_size=3, stride=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.GroupNorm(1, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return F.relu(x + self.norm(self.second(self.first(x))), inplace=True)


class KeypointHead(nn.Module):
    """Expected positions under a spatial softmax (Levine et al., 2016), beside a 3 x 3 average."""

    places: Tensor
    num_tokens = 1

    def __init__(self, channels: int, places: Tensor, num_keypoints: int, dim: int) -> None:
        super().__init__()
        self.heat = nn.Conv2d(channels, num_keypoints, 1)
        self.project = nn.Linear(2 * num_keypoints + 9 * channels, dim)
        self.register_buffer("places", places, persistent=False)

    def forward(self, features: Tensor, shift: Tensor | None) -> Tensor:
        """Feature maps (B, C, h, w) to tokens (B, 1, dim); `shift` moves the keypoints."""
        heat = self.heat(features).flatten(2).softmax(-1)
        keypoints = heat @ self.places  # (B, K, 2)
        if shift is not None:
            keypoints = keypoints + shift
        coarse = F.adaptive_avg_pool2d(features, 3)
        token: Tensor = self.project(torch.cat([keypoints.flatten(1), coarse.flatten(1)], 1))
        return token[:, None]


class PatchHead(nn.Module):
    """One token per 2 x 2 block of the feature map. Which is where, the fusion has to learn."""

    def __init__(self, channels: int, grid: tuple[int, int], dim: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, dim, 3, stride=2, padding=1)
        self.num_tokens = -(-grid[0] // 2) * -(-grid[1] // 2)

    def forward(self, features: Tensor, shift: Tensor | None) -> Tensor:
        """Feature maps (B, C, h, w) to tokens (B, n, dim)."""
        patches: Tensor = self.project(features)
        return patches.flatten(2).transpose(1, 2)


def _conv(before: int, after: int, kernel_size: int, stride: int = 2) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel_size, stride, kernel_size // 2),
        # One group: any other number is several times slower with channels last on a CPU.
        # Not BatchNorm: averaged weights and its running statistics do not belong together.
        nn.GroupNorm(1, after),
        nn.ReLU(inplace=True),
    )
