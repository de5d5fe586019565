"""ONNX Runtime with the convolutions and products in 8-bit integers, calibrated after training."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from policy.backends.base import Inputs
from policy.backends.onnx_file import write_onnx
from policy.backends.onnxruntime import OnnxRuntime

# Not "Gemm", which is a product with a single vector: states and wrenches, whose rare values lie
# far outside of any calibration, and nothing to gain where the weights are read once.
QUANTISED = ["Conv", "MatMul"]


class OnnxRuntimeInt8(OnnxRuntime):
    """Static post-training quantisation: weights int8 per channel, activations uint8 per tensor.

    The ranges of activations are the smallest and largest values over the calibration inputs,
    which `policy.backends.draws.recorded_draws` spreads over demonstrations and noise levels.
    """

    name = "onnxruntime_int8"
    tolerance = 0.5  # what is lost is for `prise eval` to say; beyond this something is broken
    calibrated = True

    def write(
        self, module: nn.Module, inputs: Sequence[Inputs], names: Sequence[str], path: Path
    ) -> None:
        """Follows `Backend`."""
        with tempfile.TemporaryDirectory() as folder:
            exact, prepared = Path(folder) / "exact.onnx", Path(folder) / "prepared.onnx"
            write_onnx(module, inputs[0], names, exact)
            quant_pre_process(
                str(exact), str(prepared), skip_optimization=True, skip_symbolic_shape=True
            )
            quantize_static(
                str(prepared),
                str(path),
                _Reader(inputs, names),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=QUANTISED,
                nodes_to_exclude=_after_softmax(prepared),
                extra_options={"MatMulConstBOnly": True},  # weights, not queries by keys
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )


def _after_softmax(path: Path) -> list[str]:
    """Products with a softmax: keypoints and attention, a few operations on numbers in [0, 1].

    Converting them to integers and back takes longer than the product.
    """
    nodes = onnx.load(path).graph.node
    heats = {name for node in nodes if node.op_type == "Softmax" for name in node.output}
    return [node.name for node in nodes if node.op_type == "MatMul" and heats & set(node.input)]


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """Calibration inputs one by one, as the quantiser asks for them."""

    def __init__(self, inputs: Sequence[Inputs], names: Sequence[str]) -> None:
        self._left = iter(inputs)
        self._names = list(names)

    def get_next(self) -> dict[str, Any] | None:
        """The next inputs by name, None after the last."""
        inputs = next(self._left, None)
        if inputs is None:
            return None
        return dict(zip(self._names, (x.numpy() for x in inputs), strict=True))
