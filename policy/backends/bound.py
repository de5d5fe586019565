"""Graphs whose engine reads its inputs and writes its output where they lie in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


class BoundGraph(ABC):
    """A graph bound to the tensors it was last called with: the same ones again cost nothing.

    Whoever calls it every tick keeps its inputs in tensors made once and writes into them: then
    nothing is copied or allocated. The output is always written to the same place.
    """

    def __init__(self, names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> None:
        """Names of the inputs, shapes of them and, last, of the output."""
        self._names, self._shapes = list(names), list(shapes[:-1])
        self._bound: list[Tensor | None] = [None] * len(self._names)
        self._kept: list[Any] = [None] * len(self._names)  # the engine sees addresses only
        self.out = torch.empty(shapes[-1])

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Its one output, valid until the next call."""
        for index, (bound, x) in enumerate(zip(self._bound, inputs, strict=True)):
            if x is not bound:
                self._rebind(index, x)
        self._run()
        return self.out

    def _rebind(self, index: int, x: Tensor) -> None:
        if tuple(x.shape) != self._shapes[index]:
            raise ValueError(
                f"The exported graph takes {self._names[index]!r} of shape {self._shapes[index]}, "
                f"got {tuple(x.shape)}; export the checkpoint again if its windows have changed."
            )
        contiguous = x.detach().contiguous()
        # A copy would not follow its original: then the next call binds anew.
        self._bound[index] = x if contiguous.data_ptr() == x.data_ptr() else None
        self._kept[index] = self._bind(index, contiguous.numpy())

    @abstractmethod
    def _bind(self, index: int, array: NDArray[Any]) -> Any:
        """Read input `index` from `array` from now on; what must be kept alive for that."""

    @abstractmethod
    def _run(self) -> None:
        """Compute into `out`."""
