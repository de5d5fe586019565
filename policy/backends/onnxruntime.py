"""ONNX Runtime (https://onnxruntime.ai); `pip install 'prise[export]'`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn

from policy.backends.base import Graph

OPSET = 18


class OnnxRuntime:
    """Graphs as .onnx files, run by the CPU provider."""

    name = "onnxruntime"
    suffix = ".onnx"

    def write(
        self, module: nn.Module, inputs: tuple[Tensor, ...], names: Sequence[str], path: Path
    ) -> None:
        """Follows `Backend`; weights lie inside the file."""
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
        )

    def read(self, path: Path, threads: int) -> Graph:
        """Follows `Backend`."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Between two ticks a spinning thread would take the core from the robot's driver.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        names = [node.name for node in session.get_inputs()]

        def run(*inputs: Tensor) -> Tensor:
            feeds = {
                name: x.detach().contiguous().numpy() for name, x in zip(names, inputs, strict=True)
            }
            return torch.from_numpy(session.run(None, feeds)[0])

        return run
