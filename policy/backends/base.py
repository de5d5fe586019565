"""What an engine has to offer, and the modules that stand in for the networks it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from policy.encoders.obs_encoder import ObsEncoder


class Graph(Protocol):
    """A network with fixed input shapes, ready to run."""

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Its one output, valid until the next call."""
        ...


class Backend(Protocol):
    """Writes a module as a file of its own format, and runs such a file."""

    name: str
    suffix: str

    def write(
        self, module: nn.Module, inputs: tuple[Tensor, ...], names: Sequence[str], path: Path
    ) -> None:
        """Write `module` with the shapes of `inputs`, called `names`, to `path`."""
        ...

    def read(self, path: Path, threads: int) -> Graph:
        """Load what `write` wrote; it computes on `threads` threads."""
        ...


class EncoderGraph(nn.Module):
    """The encoder as a module of positional tensors: what engines can trace."""

    def __init__(self, encoder: ObsEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, *inputs: Tensor) -> Tensor:
        """Normalised observations in the order of `encoder.keys` to context (1, N, D)."""
        context: Tensor = self.encoder(dict(zip(self.encoder.keys, inputs, strict=True)))
        return context


class ExportedEncoder(nn.Module):
    """Stands in for an `ObsEncoder`."""

    def __init__(self, graph: Graph, encoder: ObsEncoder) -> None:
        super().__init__()
        self._graph, self.keys = graph, encoder.keys
        self.num_tokens, self.dim, self.context_dim = (
            encoder.num_tokens,
            encoder.dim,
            encoder.context_dim,
        )

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Normalised windowed observations of one robot to context (1, N, D)."""
        for key in self.keys:
            _check_one(key, obs[key])
        return self._graph(*(obs[key] for key in self.keys))


class ExportedDenoiser(nn.Module):
    """Stands in for a denoiser, for one chunk with one level."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self._graph = graph

    def forward(self, x: Tensor, level: Tensor, context: Tensor) -> Tensor:
        """X (1, Tp, A), level (1, 1), context (1, N, D) to (1, Tp, A)."""
        _check_one("x", x)
        if tuple(level.shape) != (1, 1):
            raise ValueError(
                f"An exported denoiser takes one level for the chunk, shape (1, 1); got "
                f"{tuple(level.shape)}. Use backend=eager for a level per action."
            )
        return self._graph(x, level, context)


def _check_one(name: str, x: Tensor) -> None:
    if len(x) != 1:
        raise ValueError(
            f"An exported policy acts for one robot: {name!r} came in a batch of {len(x)}, wanted "
            "1. Use backend=eager for batches."
        )
