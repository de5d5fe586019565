"""The usual encoder of camera images."""

from __future__ import annotations

from functools import partial

from torch import nn
from torchvision.models import resnet18

from data.spec import Horizons, ObsSpec
from policy.encoders.vision import CameraEncoder, Pool


class ResNet18(CameraEncoder):
    """ResNet-18 (He et al., 2016) from scratch with GroupNorm, as Chi et al. (2023) train it.

    An order of magnitude more work than `SmallResNet`; for real images and long trainings.
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
        net = resnet18(norm_layer=partial(_group_norm, group_size))
        layers = list(net.children())[:-2]  # without average pooling and classifier
        super().__init__(spec, horizons, nn.Sequential(*layers), crop, pool, num_keypoints, dim)


def _group_norm(group_size: int, channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // group_size, channels)
