"""Samples to trained diffusion policies. Imports `data`, never `envs` or `deploy`."""

from policy.diffusion_policy import DiffusionPolicy, SolveState
from policy.ema import EMA
from policy.normalizer import Normalizer

__all__ = ["EMA", "DiffusionPolicy", "Normalizer", "SolveState"]
