"""Observations to context tokens: one encoder per key, then a fusion."""

from policy.encoders.force import CausalConvEncoder
from policy.encoders.fusion_concat import Concat
from policy.encoders.fusion_cross_attention import CrossAttention
from policy.encoders.fusion_gated import Gated
from policy.encoders.obs_encoder import ObsEncoder, TokenSpec
from policy.encoders.resnet18 import ResNet18
from policy.encoders.state import StateMLP
from policy.encoders.vision import SmallResNet

__all__ = [
    "CausalConvEncoder",
    "Concat",
    "CrossAttention",
    "Gated",
    "ObsEncoder",
    "ResNet18",
    "SmallResNet",
    "StateMLP",
    "TokenSpec",
]
