"""What an engine has to offer, and the modules that stand in for the networks it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from policy.diffusion_policy import DiffusionPolicy
from policy.encoders.obs_encoder import ObsEncoder
from policy.normalizer import ACTION

Inputs = tuple[Tensor, ...]


class Graph(Protocol):
    """A network with fixed input shapes, ready to run."""

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Its one output, valid until the next call."""
        ...


class Backend(Protocol):
    """Writes a module as a file of its own format, and runs such a file."""

    name: str
    suffix: str
    tolerance: float  # largest difference to eager torch, in network units: actions fill [-1, 1]
    calibrated: bool  # what it writes depends on the values of the inputs, not on shapes alone

    def write(
        self, module: nn.Module, inputs: Sequence[Inputs], names: Sequence[str], path: Path
    ) -> None:
        """Write `module` with the shapes of `inputs[0]`, called `names`, to `path`.

        `inputs` are draws of what it will see: real ones for an engine that is `calibrated`.
        """
        ...

    def read(self, path: Path, threads: int) -> Graph:
        """Load what `write` wrote; it computes on `threads` threads."""
        ...


class EncoderGraph(nn.Module):
    """Normaliser and encoder as a module of positional tensors: what engines can trace."""

    def __init__(self, policy: DiffusionPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, *inputs: Tensor) -> Tensor:
        """Observations in physical units, in the order of the keys, to context (1, N, D)."""
        return self.policy.encode(dict(zip(self.policy.encoder.keys, inputs, strict=True)))


class RefineGraph(nn.Module):
    """A warm start and its only evaluation: the second half of a real-time-iteration tick.

    x = signal prior + sigma noise, whichever warm start these factors are of.
    """

    def __init__(self, policy: DiffusionPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(
        self,
        prior: Tensor,
        noise: Tensor,
        level: Tensor,
        signal: Tensor,
        sigma: Tensor,
        context: Tensor,
    ) -> Tensor:
        """The chunk (1, Tp, A) in physical units.

        Args:
            prior: Shifted plan (1, Tp, A) in physical units.
            noise: Standard normal (1, Tp, A).
            level: Of the warm start (1, 1).
            signal: Factor of the prior (1, 1, 1).
            sigma: Factor of the noise (1, 1, 1).
            context: Tokens (1, N, D).
        """
        policy = self.policy
        clip = policy.clip
        x0 = policy.normalizer.normalize(ACTION, prior).clamp(-clip, clip)
        x = signal * x0 + sigma * noise
        out = policy.denoiser(x, level, context)
        x0 = policy.parameterization.to_x0(out, x, level[..., None], policy.schedule)
        actions = policy.normalizer.unnormalize(ACTION, x0.clamp(-clip, clip))
        return actions.clamp(policy.low, policy.high)


class ExportedEncoder(nn.Module):
    """Stands in for an `ObsEncoder` and for the normaliser of what it looks at."""

    def __init__(self, graph: Graph, encoder: ObsEncoder) -> None:
        super().__init__()
        self.graph, self.keys = graph, encoder.keys
        self.num_tokens, self.dim, self.context_dim = (
            encoder.num_tokens,
            encoder.dim,
            encoder.context_dim,
        )

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Windowed observations of one robot, in physical units, to context (1, N, D)."""
        for key in self.keys:
            _check_one(key, obs[key])
        return self.graph(*(obs[key] for key in self.keys)).clone()


class ExportedDenoiser(nn.Module):
    """Stands in for a denoiser, for one chunk with one level.

    `refine` is the graph of a whole `RefineGraph`, for who solves in one evaluation.
    """

    def __init__(self, graph: Graph, refine: Graph) -> None:
        super().__init__()
        self.graph, self.refine = graph, refine

    def forward(self, x: Tensor, level: Tensor, context: Tensor) -> Tensor:
        """X (1, Tp, A), level (1, 1), context (1, N, D) to (1, Tp, A)."""
        _check_one("x", x)
        if tuple(level.shape) != (1, 1):
            raise ValueError(
                f"An exported denoiser takes one level for the chunk, shape (1, 1); got "
                f"{tuple(level.shape)}. Use backend=eager for a level per action."
            )
        return self.graph(x, level, context).clone()


def _check_one(name: str, x: Tensor) -> None:
    if len(x) != 1:
        raise ValueError(
            f"An exported policy acts for one robot: {name!r} came in a batch of {len(x)}, wanted "
            "1. Use backend=eager for batches."
        )
