"""What an engine has to offer, and the modules that stand in for the networks it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from policy.diffusion_policy import DiffusionPolicy
from policy.encoders.obs_encoder import ObsEncoder
from policy.encoders.vision import camera_encoders
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


class FrameGraph(nn.Module):
    """Encoder for who remembers: tokens of earlier camera frames in, only the newest encoded.

        earlier tokens (1, To - 1, T) --------------------+
        newest frames (1, 1, H, W, C) --encoders--> tokens +--fusion--> context
        other windows -----------------encoders--> tokens +

    A row of T numbers is a frame's tokens of all cameras, one camera after the other. The output is
    the context and, behind it, the row of the newest frame: engines have one output.
    """

    def __init__(self, policy: DiffusionPolicy) -> None:
        super().__init__()
        self.policy = policy
        self.sizes = frame_sizes(policy.encoder)

    @staticmethod
    def helps(policy: DiffusionPolicy) -> bool:
        """True where windows overlap: more than one frame of a camera that is encoded by frame."""
        return policy.horizons.obs > 1 and bool(frame_sizes(policy.encoder))

    def forward(self, earlier: Tensor, *inputs: Tensor) -> Tensor:
        """(1, N * D + T) of observations in physical units, in the order of the keys."""
        encoder, normalizer = self.policy.encoder, self.policy.normalizer
        cameras = camera_encoders(encoder)
        rows = torch.split(earlier, list(self.sizes.values()), -1)
        known = dict(zip(cameras, rows, strict=True))
        tokens, newest = {}, []
        for key, x in zip(encoder.keys, inputs, strict=True):
            normalized = normalizer.normalize(key, x)
            if key not in cameras:
                tokens[key] = encoder.encoders[key](normalized)
                continue
            token = cameras[key].frames(normalized)  # (1, n, dim)
            before = known[key].reshape(1, -1, token.shape[-1])
            tokens[key] = torch.cat([before, token], 1)  # (1, To * n, dim)
            newest.append(token.flatten(1))
        context: Tensor = encoder.fusion(tokens)
        return torch.cat([context.flatten(1), *newest], 1)

    def tokens(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Rows (1, F, T) of the F frames of a window in physical units."""
        rows = [
            camera.frames(self.policy.normalizer.normalize(key, obs[key])).flatten(1)
            for key, camera in camera_encoders(self.policy.encoder).items()
        ]
        return torch.cat(rows, 1)[None]


def frame_sizes(encoder: nn.Module) -> dict[str, int]:
    """How many numbers the tokens of a frame are, for each camera that is encoded by frame."""
    cameras = camera_encoders(encoder)
    return {key: camera.head.num_tokens * camera.dim for key, camera in cameras.items()}


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
    """Stands in for an `ObsEncoder` and for the normaliser of what it looks at.

    `newest` is the graph of a `FrameGraph`, for who remembers tokens; None where it does not help.
    """

    def __init__(self, graph: Graph, encoder: ObsEncoder, newest: Graph | None = None) -> None:
        super().__init__()
        self.graph, self.keys, self.newest = graph, encoder.keys, newest
        self.frame_sizes = frame_sizes(encoder)
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
