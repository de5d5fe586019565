"""`prise predictor`: a learned warm start for a checkpoint."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from data.formats.zarr_store import open_zarr
from data.mixture import fingerprint
from policy.checkpoint import load_policy
from policy.distill_prior import DistillConfig, distill_prior
from policy.prior_predictor import save_predictor


def run(config: dict[str, Any]) -> int:
    """Train the predictor into the checkpoint's folder and say how good it is."""
    checkpoint, settings = Path(config["checkpoint"]), DistillConfig(**config["predictor"])
    store = open_zarr(config["dataset"]["path"])
    policy = load_policy(checkpoint)
    torch.set_num_threads(config["threads"])
    prior = distill_prior(policy, store, settings)
    errors = {"shifted_error": prior.shifted_error, "predicted_error": prior.predicted_error}
    about = asdict(settings) | {"dataset": fingerprint(store), "pairs": prior.pairs} | errors
    place = save_predictor(checkpoint, prior.predictor, about)
    print(
        f"{place}: on held-out episodes the policy's next plan is met within "
        f"{prior.predicted_error:.3f} (rms, in units in which actions fill [-1, 1]); the shifted "
        f"last plan is {prior.shifted_error:.3f} off."
    )
    print(f"use it by controller=rti_learned, with checkpoint={checkpoint}.")
    return 0
