"""ONNX Runtime (https://onnxruntime.ai); `pip install 'prise[export]'`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray
from torch import nn

from policy.backends.base import Graph, Inputs
from policy.backends.bound import BoundGraph
from policy.backends.onnx_file import write_onnx


class OnnxRuntime:
    """Graphs as .onnx files, run by the CPU provider."""

    name = "onnxruntime"
    suffix = ".onnx"
    tolerance = 1e-3
    calibrated = False

    def write(
        self, module: nn.Module, inputs: Sequence[Inputs], names: Sequence[str], path: Path
    ) -> None:
        """Follows `Backend`; weights lie inside the file."""
        write_onnx(module, inputs[0], names, path)

    def read(self, path: Path, threads: int) -> Graph:
        """Follows `Backend`."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Between two ticks a spinning thread would take the core from the robot's driver.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return _OnnxGraph(
            onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        )


class _OnnxGraph(BoundGraph):
    def __init__(self, session: Any) -> None:
        inputs, outputs = session.get_inputs(), session.get_outputs()
        super().__init__(
            [node.name for node in inputs], [tuple(node.shape) for node in (*inputs, *outputs)]
        )
        self._session, self._binding = session, session.io_binding()
        out = self.out.numpy()
        self._binding.bind_output(outputs[0].name, *_place(out))

    def _bind(self, index: int, array: NDArray[Any]) -> Any:
        self._binding.bind_input(self._names[index], *_place(array))
        return array

    def _run(self) -> None:
        self._session.run_with_iobinding(self._binding)


def _place(array: NDArray[Any]) -> tuple[str, int, type, tuple[int, ...], int]:
    """Device, its number, type, shape and address, as a binding wants them."""
    return "cpu", 0, array.dtype.type, array.shape, array.ctypes.data
