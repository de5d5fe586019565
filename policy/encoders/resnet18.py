"""The usual encoder of camera images."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from data.spec import Horizons, ObsSpec
from policy.encoders.vision import CameraEncoder, Pool

# Channels of the four stages, two blocks each; all but the first halve the resolution.
STAGES = (64, 128, 256, 512)


class ResNet18(CameraEncoder):
    """ResNet-18 (He et al., 2016, table 1) from scratch with GroupNorm, as Chi et al. (2023).

    An order of magnitude more work than `SmallResNet`; for real images and long trainings. Not
    torchvision's: importing that loads Triton, which crashes beside OSMesa.
    """

    def __init__(
        self,
        spec: ObsSpec,
        horizons: Horizons,
        crop: float = 0.9,
        group_size: int = 16,
        pool: Pool = "spatial_softmax",
        num_keypoints: int = 32,
        dim: int = 64,
    ) -> None:
        """`group_size` is the number of channels that are normalised together."""
        layers: list[nn.Module] = [
            nn.Conv2d(spec.shape[-1], STAGES[0], 7, 2, 3, bias=False),
            nn.GroupNorm(STAGES[0] // group_size, STAGES[0]),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        ]
        before = STAGES[0]
        for after in STAGES:
            stride = 1 if after == before else 2
            layers += [
                BasicBlock(before, after, stride, group_size),
                BasicBlock(after, after, 1, group_size),
            ]
            before = after
        super().__init__(spec, horizons, nn.Sequential(*layers), crop, pool, num_keypoints, dim)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, which is a 1 x 1 convolution where sizes differ."""

    def __init__(self, before: int, after: int, stride: int, group_size: int) -> None:
        super().__init__()
        groups = after // group_size
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.first_norm = nn.GroupNorm(groups, after)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.second_norm = nn.GroupNorm(groups, after)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.GroupNorm(groups, after)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, h, w) to (B, C', h / stride, w / stride)."""
        h = F.relu(self.first_norm(self.first(x)), inplace=True)
        h = self.second_norm(self.second(h))
        return F.relu(h + self.shortcut(x), inplace=True)
