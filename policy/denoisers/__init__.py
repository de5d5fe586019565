"""Networks (x (B, Tp, A), level (B, Tp), context (B, N, D)) -> (B, Tp, A)."""

from policy.denoisers.transformer import DiffusionTransformer
from policy.denoisers.unet1d import UNet1d

__all__ = ["DiffusionTransformer", "UNet1d"]
