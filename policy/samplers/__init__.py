"""Sampling schemes. Each is one frozen dataclass whose `step` carries both noise levels."""

from policy.samplers.base import Evaluation, Sampler, level_list
from policy.samplers.ddim import DDIM
from policy.samplers.ddpm import DDPM
from policy.samplers.dpmpp import DPMSolverPP2M

__all__ = ["DDIM", "DDPM", "DPMSolverPP2M", "Evaluation", "Sampler", "level_list"]
