"""Modules as .onnx files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from onnxscript import opset18 as op
from torch import nn

from policy.backends.base import Inputs

OPSET = 18


def write_onnx(module: nn.Module, inputs: Inputs, names: Sequence[str], path: Path) -> None:
    """`module` with the shapes of `inputs`; weights lie inside the file."""
    torch.onnx.export(
        module,
        inputs,
        str(path),
        input_names=list(names),
        output_names=["out"],
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
        custom_translation_table={torch.ops.prims.signbit.default: _signbit},
    )


def _signbit(x: Any) -> Any:
    """What `copysign` is made of; the exporter has no word for it. A zero has no sign here."""
    zero: Any = op.Constant(value_float=0.0)
    return op.Less(x, op.CastLike(zero, x))
