"""A learned warm start: what the next chunk will be, from the observation and the last chunk.

    last/predictor/
      weights.safetensors
      about.json            digests of it and of the checkpoint's weights, shape, how it was trained

It is written beside its place and renamed; saving the checkpoint again removes it with the weights
whose samples it learnt from.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from policy.checkpoint import WEIGHTS, CheckpointError, open_checkpoint
from policy.diffusion_policy import DiffusionPolicy

PREDICTOR, ABOUT = "predictor", "about.json"
SCHEMA_VERSION = 1


class PriorPredictor(nn.Module):
    """prior + MLP(context, prior), in network units; the prior itself before training.

    After STEP (Li et al. 2026, arXiv 2602.08245), whose predictor is a transformer; ours must cost
    little beside one evaluation of a small denoiser.
    """

    def __init__(self, policy: DiffusionPolicy, hidden: int = 256, num_layers: int = 2) -> None:
        super().__init__()
        if hidden < 1 or num_layers < 1:
            raise ValueError(f"hidden and num_layers must be 1 or more, got {hidden, num_layers}.")
        chunk = policy.horizons.pred * policy.spec.action.dim
        width = policy.encoder.num_tokens * policy.encoder.dim
        self.shape = {"hidden": hidden, "num_layers": num_layers}
        self.norm = nn.LayerNorm(width)
        sizes = [width + chunk] + [hidden] * num_layers
        layers: list[nn.Module] = []
        for size, following in pairwise(sizes):
            layers += [nn.Linear(size, following), nn.Mish()]
        last = nn.Linear(hidden, chunk)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(*layers, last)

    def forward(self, context: Tensor, prior: Tensor) -> Tensor:
        """Context (B, N, D) and shifted chunk (B, Tp, A) to the chunk expected now (B, Tp, A)."""
        inputs = torch.cat([self.norm(context.flatten(1)), prior.flatten(1)], 1)
        change: Tensor = self.mlp(inputs)
        return prior + change.view_as(prior)


def save_predictor(
    checkpoint: Path | str, predictor: PriorPredictor, training: Mapping[str, Any]
) -> Path:
    """Write the predictor into the checkpoint's folder; where it went."""
    opened = open_checkpoint(checkpoint)
    place = opened.path / PREDICTOR
    new = place.with_name(f".{PREDICTOR}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    weights = safetensors.torch.save({k: v.contiguous() for k, v in predictor.state_dict().items()})
    about = {
        "schema_version": SCHEMA_VERSION,
        "policy": opened.digests[WEIGHTS],
        "weights": hashlib.sha256(weights).hexdigest(),
        "shape": predictor.shape,
        "training": dict(training),
    }
    (new / WEIGHTS).write_bytes(weights)
    (new / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(place, ignore_errors=True)
    new.rename(place)
    return place


def load_predictor(policy: DiffusionPolicy) -> PriorPredictor:
    """The predictor of the checkpoint that `policy` was loaded from, frozen and on its device."""
    if policy.folder is None:
        raise CheckpointError(
            "a predictor lies in a checkpoint's folder, this policy was not loaded from one; use "
            "prise.load_policy."
        )
    place = policy.folder / PREDICTOR
    how = f"train one with `prise predictor checkpoint={policy.folder} dataset.path=...`"
    about, weights = _read(place, how)
    if about["policy"] != open_checkpoint(policy.folder).digests[WEIGHTS]:
        raise CheckpointError(f"{place} was trained on other weights of the policy; {how}.")
    predictor = PriorPredictor(policy, **about["shape"])
    try:
        predictor.load_state_dict(safetensors.torch.load(weights))
    except RuntimeError as error:
        raise CheckpointError(f"{place} does not fit the policy; {how}.") from error
    return predictor.to(policy.low.device).eval().requires_grad_(False)


def _read(place: Path, how: str) -> tuple[dict[str, Any], bytes]:
    """What is written about the predictor, and its weights; CheckpointError unless both fit."""
    if not (place / ABOUT).is_file():
        raise CheckpointError(f"{place.parent} has no predictor; {how}.")
    try:
        about = json.loads((place / ABOUT).read_text(encoding="utf-8"))
        version, digest = about["schema_version"], about["weights"]
        policy = about["policy"]
        shape = {key: int(about["shape"][key]) for key in ("hidden", "num_layers")}
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{place / ABOUT} is damaged: {error!r}; {how}.") from error
    if version != SCHEMA_VERSION:
        raise CheckpointError(
            f"{place} has schema version {version!r}, this code reads {SCHEMA_VERSION}; {how}."
        )
    weights = (place / WEIGHTS).read_bytes() if (place / WEIGHTS).is_file() else b""
    if hashlib.sha256(weights).hexdigest() != digest:
        raise CheckpointError(f"{place / WEIGHTS} is missing or was changed; {how}.")
    return {"policy": policy, "shape": shape}, weights
