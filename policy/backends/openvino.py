"""OpenVINO (https://docs.openvino.ai); `pip install 'prise[export,openvino]'`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openvino
from numpy.typing import NDArray
from torch import nn

from policy.backends.base import Graph, Inputs
from policy.backends.bound import BoundGraph
from policy.backends.onnx_file import write_onnx


class OpenVino:
    """Graphs as .xml files with their weights in .bin files, run by the CPU plugin in float32."""

    name = "openvino"
    suffix = ".xml"
    tolerance = 1e-3
    calibrated = False

    def write(
        self, module: nn.Module, inputs: Sequence[Inputs], names: Sequence[str], path: Path
    ) -> None:
        """Follows `Backend`."""
        with tempfile.TemporaryDirectory() as folder:
            onnx = Path(folder) / "graph.onnx"
            write_onnx(module, inputs[0], names, onnx)
            openvino.save_model(openvino.convert_model(onnx), path, compress_to_fp16=False)

    def read(self, path: Path, threads: int) -> Graph:
        """Follows `Backend`."""
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where the processor has it
            # With generated kernels 2026.4 cannot compile Mish for x86 ("Supported precisions set
            # is not available"), and computes the transformer wrongly, by up to 0.2.
            "SNIPPETS_MODE": "DISABLE",
        }
        return _OpenVinoGraph(openvino.Core().compile_model(path, "CPU", settings))


class _OpenVinoGraph(BoundGraph):
    def __init__(self, compiled: Any) -> None:
        super().__init__(
            [port.any_name for port in compiled.inputs],
            [tuple(port.shape) for port in (*compiled.inputs, *compiled.outputs)],
        )
        self._request = compiled.create_infer_request()
        self._out = openvino.Tensor(self.out.numpy(), shared_memory=True)
        self._request.set_output_tensor(0, self._out)

    def _bind(self, index: int, array: NDArray[Any]) -> Any:
        tensor = openvino.Tensor(array, shared_memory=True)
        self._request.set_input_tensor(index, tensor)
        return tensor, array

    def _run(self) -> None:
        self._request.infer(share_outputs=True)
