"""A policy's networks in the format of another engine, beside its weights and checked against them.

    last/exported/onnxruntime/
      encoder.onnx, denoiser.onnx   and whatever else the engine writes
      export.json                   digests of these files, of the weights, largest differences

An export is written beside its place and renamed; saving the checkpoint again removes it with the
weights it was made from.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from policy.backends.base import Backend, EncoderGraph, ExportedDenoiser, ExportedEncoder
from policy.checkpoint import WEIGHTS, CheckpointError, load_policy, open_checkpoint
from policy.diffusion_policy import DiffusionPolicy

EXPORTED, ABOUT = "exported", "export.json"
ENCODER, DENOISER = "encoder", "denoiser"
TRIALS = 32
TOLERANCE = 1e-3  # in network units, in which actions fill [-1, 1]


@dataclass(frozen=True)
class Export:
    """What was exported: largest absolute differences to eager torch, in network units."""

    backend: str
    weights: str
    files: dict[str, str]
    encoder_difference: float
    denoiser_difference: float


def export_policy(checkpoint: Path, backend: Backend, threads: int = 1) -> Export:
    """Write both networks into the checkpoint's folder; ValueError where they compute otherwise."""
    opened, policy = open_checkpoint(checkpoint), load_policy(checkpoint)
    place = opened.path / EXPORTED / backend.name
    new = place.with_name(f".{backend.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    differences = {}
    for part, module, draw, names in _parts(policy):
        path = new / f"{part}{backend.suffix}"
        with torch.no_grad():
            backend.write(module, draw(0), names, path)
        differences[part] = _difference(module, backend.read(path, threads), draw)
        if differences[part] > TOLERANCE:
            raise ValueError(
                f"{backend.name} computes the {part} with a difference of {differences[part]:.2g}, "
                f"wanted at most {TOLERANCE}; use another backend."
            )
    files = {str(path.relative_to(new)): _digest(path) for path in new.rglob("*") if path.is_file()}
    about = Export(
        backend.name, opened.digests[WEIGHTS], files, differences[ENCODER], differences[DENOISER]
    )
    (new / ABOUT).write_text(json.dumps(asdict(about), indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(place, ignore_errors=True)
    new.rename(place)
    return about


def load_for_acting(
    checkpoint: Path, backend: Backend | None = None, threads: int = 1
) -> DiffusionPolicy:
    """The policy, its networks run by `backend`, or by torch itself without one.

    Raises CheckpointError where there is no export, or one that does not belong to the weights.
    """
    if backend is None:
        return load_policy(checkpoint)
    opened, policy = open_checkpoint(checkpoint), load_policy(checkpoint)
    place = opened.path / EXPORTED / backend.name
    how = f"write it with `prise export checkpoint={checkpoint} backend={backend.name}`"
    if not (place / ABOUT).is_file():
        raise CheckpointError(f"{opened.path} has no export for {backend.name}; {how}.")
    about = Export(**json.loads((place / ABOUT).read_text(encoding="utf-8")))
    if about.weights != opened.digests[WEIGHTS]:
        raise CheckpointError(f"{place} was made from other weights; {how} again.")
    for name, digest in about.files.items():
        if not (place / name).is_file() or _digest(place / name) != digest:
            raise CheckpointError(f"{place / name} is missing or was changed; {how} again.")
    graphs = {
        part: backend.read(place / f"{part}{backend.suffix}", threads)
        for part in (ENCODER, DENOISER)
    }
    policy.encoder = ExportedEncoder(graphs[ENCODER], policy.encoder)  # type: ignore[assignment]  # stands in for it
    policy.denoiser = ExportedDenoiser(graphs[DENOISER])
    return policy


Draw = Callable[[int], tuple[Tensor, ...]]


def _parts(policy: DiffusionPolicy) -> list[tuple[str, nn.Module, Draw, Sequence[str]]]:
    """Name, module, random inputs by seed, and names of the inputs, for both networks."""
    spec, horizons, keys = policy.spec, policy.horizons, policy.encoder.keys

    def observations(seed: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        lengths = {
            key: horizons.window if spec.obs[key].modality == "wrench" else horizons.obs
            for key in keys
        }
        return tuple(
            2 * torch.rand(1, lengths[key], *spec.obs[key].shape, generator=generator) - 1
            for key in keys
        )

    def chunk(seed: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        shape = (1, horizons.pred, spec.action.dim)
        with torch.no_grad():
            context = EncoderGraph(policy.encoder)(*observations(seed))
        return (
            torch.randn(shape, generator=generator),
            torch.rand(1, 1, generator=generator),
            context,
        )

    return [
        (ENCODER, EncoderGraph(policy.encoder).eval(), observations, keys),
        (DENOISER, policy.denoiser, chunk, ("x", "level", "context")),
    ]


@torch.no_grad()
def _difference(module: nn.Module, graph: Callable[..., Any], draw: Draw) -> float:
    worst = 0.0
    for seed in range(TRIALS):
        inputs = draw(seed)
        worst = max(worst, float((graph(*inputs) - module(*inputs)).abs().max()))
    return worst


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
