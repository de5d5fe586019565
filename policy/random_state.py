"""The random generators of a process: seeding them, and their states as tensors."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

import torch
from torch import Tensor


def seed_everything(seed: int) -> None:
    """Seed the global generators: initial weights, dropout and augmentation draw from them."""
    random.seed(seed)
    torch.manual_seed(seed)


def pack_random(noise: torch.Generator) -> dict[str, Tensor]:
    """States of the noise generator and of the global ones: torch, CUDA, python."""
    version, words, gauss = random.getstate()
    packed = {
        "noise": noise.get_state(),
        "torch": torch.get_rng_state(),
        # The cached second normal draw: NaN where there is none.
        "python": torch.tensor([version, *words], dtype=torch.int64),
        "python_gauss": torch.tensor(float("nan") if gauss is None else gauss, dtype=torch.float64),
    }
    if torch.cuda.is_available():
        packed["cuda"] = torch.cuda.get_rng_state()
    return packed


def unpack_random(packed: Mapping[str, Tensor], noise: torch.Generator) -> None:
    """Inverse of `pack_random`."""
    noise.set_state(packed["noise"].cpu())
    torch.set_rng_state(packed["torch"].cpu())
    version, *words = packed["python"].tolist()
    gauss = packed["python_gauss"].item()
    random.setstate((version, tuple(words), None if math.isnan(gauss) else gauss))
    if "cuda" in packed and torch.cuda.is_available():
        torch.cuda.set_rng_state(packed["cuda"].cpu())
