"""AOTInductor: torch's own compiler, ahead of time; needs a C++ compiler where it exports.

A package holds machine code that runs when it is loaded: act with those you have exported.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch._inductor
from torch import Tensor, nn

from policy.backends.base import Graph, Inputs


class AotInductor:
    """Graphs as .pt2 packages, made for this kind of processor; they run on torch's threads."""

    name = "aot_inductor"
    suffix = ".pt2"
    tolerance = 1e-3
    calibrated = False

    def write(
        self, module: nn.Module, inputs: Sequence[Inputs], names: Sequence[str], path: Path
    ) -> None:
        """Follows `Backend`; weights are folded into the code, which takes half a minute."""
        program = torch.export.export(module, inputs[0])
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(path), inductor_configs={"freezing": True}
        )

    def read(self, path: Path, threads: int) -> Graph:
        """Follows `Backend`; `threads` are torch's, which are set for the whole process."""
        model: Any = torch._inductor.aoti_load_package(str(path))

        def run(*inputs: Tensor) -> Tensor:
            out: Tensor = model(*inputs)
            return out

        return run
