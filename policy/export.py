"""A policy's networks in the format of another engine, beside its weights and checked against them.

    last/exported/onnxruntime/
      encoder.onnx                  observations in physical units -> context
      denoiser.onnx                 one evaluation
      refine.onnx                   a warm start with one evaluation, in physical units
      export.json                   digests of these files, of the weights, largest differences

An export is written beside its place and renamed; saving the checkpoint again removes it with the
weights it was made from.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from data.formats.zarr_store import DemoStore
from policy.backends.base import (
    Backend,
    EncoderGraph,
    ExportedDenoiser,
    ExportedEncoder,
    FrameGraph,
    Graph,
    Inputs,
    RefineGraph,
)
from policy.backends.draws import Draws, random_draws, recorded_draws
from policy.checkpoint import WEIGHTS, CheckpointError, load_policy, open_checkpoint
from policy.diffusion_policy import DiffusionPolicy
from policy.normalizer import ACTION

EXPORTED, ABOUT = "exported", "export.json"
ENCODER, FRAMES, DENOISER, REFINE = "encoder", "frames", "denoiser", "refine"


TRIALS = 32  # inputs on which an export is checked
CALIBRATION = 512  # demonstrated windows, each with a level


@dataclass(frozen=True)
class Export:
    """What was exported: largest absolute differences to eager torch, in network units."""

    backend: str
    weights: str
    files: dict[str, str]
    encoder_difference: float
    denoiser_difference: float
    refine_difference: float
    frames_difference: float | None = None  # no such graph: nothing to re-use


@dataclass(frozen=True)
class Part:
    """A graph: the module, names and draws of its inputs, and its output in network units."""

    module: nn.Module
    names: Sequence[str]
    inputs: Sequence[Inputs]
    in_network_units: Callable[[Tensor], Tensor]


def export_policy(
    checkpoint: Path, backend: Backend, threads: int = 1, store: DemoStore | None = None
) -> Export:
    """Write the graphs into the checkpoint's folder; ValueError where they compute otherwise.

    An engine that is `calibrated` needs demonstrations in `store`, and is checked on others of
    them than it was calibrated with; without a store the check is on random inputs.
    """
    opened, policy = open_checkpoint(checkpoint), load_policy(checkpoint)
    if backend.calibrated and store is None:
        raise ValueError(f"{backend.name} is calibrated on demonstrations; add dataset.path=PATH.")
    if store is None:
        seen = unseen = random_draws(policy, TRIALS)
    else:
        seen = recorded_draws(policy, store, CALIBRATION if backend.calibrated else 1)
        unseen = recorded_draws(policy, store, TRIALS, seed=1)
    place = opened.path / EXPORTED / backend.name
    new = place.with_name(f".{backend.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    differences = {}
    checks = _parts(policy, unseen)
    for name, part in _parts(policy, seen).items():
        path = new / f"{name}{backend.suffix}"
        with torch.no_grad():
            backend.write(part.module, part.inputs, part.names, path)
        differences[name] = _difference(checks[name], backend.read(path, threads))
        if differences[name] > backend.tolerance:
            raise ValueError(
                f"{backend.name} computes the {name} with a difference of {differences[name]:.2g}, "
                f"wanted at most {backend.tolerance}; use another backend."
            )
    files = {str(path.relative_to(new)): _digest(path) for path in new.rglob("*") if path.is_file()}
    about = Export(
        backend.name,
        opened.digests[WEIGHTS],
        files,
        **{f"{name}_difference": value for name, value in differences.items()},
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
    _check_export(place, opened.digests[WEIGHTS], how)
    frames = [FRAMES] if FrameGraph.helps(policy) else []
    graphs = {
        part: backend.read(place / f"{part}{backend.suffix}", threads)
        for part in (ENCODER, DENOISER, REFINE, *frames)
    }
    for key in policy.encoder.keys:
        policy.normalizer.leave(key)  # the graph does it
    encoder = ExportedEncoder(graphs[ENCODER], policy.encoder, graphs.get(FRAMES))
    policy.encoder = encoder  # type: ignore[assignment]  # stands in for it
    policy.denoiser = ExportedDenoiser(graphs[DENOISER], graphs[REFINE])
    return policy


def _check_export(place: Path, weights: str, how: str) -> None:
    """Raise CheckpointError unless the export at `place` is whole and was made of `weights`."""
    if not (place / ABOUT).is_file():
        raise CheckpointError(f"{place.parent.parent} has no export for {place.name}; {how}.")
    about = json.loads((place / ABOUT).read_text(encoding="utf-8"))
    if about.keys() != {field.name for field in fields(Export)}:
        raise CheckpointError(f"{place} was written by another version of Prise; {how} again.")
    if about["weights"] != weights:
        raise CheckpointError(f"{place} was made from other weights; {how} again.")
    for name, digest in about["files"].items():
        if not (place / name).is_file() or _digest(place / name) != digest:
            raise CheckpointError(f"{place / name} is missing or was changed; {how} again.")


def _parts(policy: DiffusionPolicy, draws: Draws) -> dict[str, Part]:
    def same(x: Tensor) -> Tensor:
        return x

    keys = policy.encoder.keys
    frames = Part(FrameGraph(policy).eval(), ("earlier", *keys), draws.frames, same)
    return {
        ENCODER: Part(EncoderGraph(policy).eval(), keys, draws.encoder, same),
        **({FRAMES: frames} if draws.frames else {}),
        DENOISER: Part(policy.denoiser, ("x", "level", "context"), draws.denoiser, same),
        REFINE: Part(
            RefineGraph(policy).eval(),
            ("prior", "noise", "level", "signal", "sigma", "context"),
            draws.refine,
            partial(policy.normalizer.normalize, ACTION),
        ),
    }


@torch.no_grad()
def _difference(part: Part, graph: Graph) -> float:
    worst, scale = 0.0, part.in_network_units
    for inputs in part.inputs:
        difference = scale(graph(*inputs)) - scale(part.module(*inputs))
        worst = max(worst, float(difference.abs().max()))
    return worst


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
