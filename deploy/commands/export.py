"""`prise export`: a checkpoint's networks in the format of another engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.build import build
from data.mixture import open_one
from policy.export import export_policy


def run(config: dict[str, Any]) -> int:
    """Write the export into the checkpoint's folder and say how far it is from eager torch."""
    if not config["backend"]:
        raise ValueError("backend=eager needs no export; choose another backend.")
    dataset = config["dataset"]
    about = export_policy(
        Path(config["checkpoint"]),
        build(config["backend"]),
        config["threads"],
        None if dataset["path"] is None else open_one(dataset),
    )
    print(
        f"{about.backend}: written beside the weights; largest difference to eager torch "
        f"{about.encoder_difference:.1e} (encoder), {about.denoiser_difference:.1e} (denoiser), "
        f"{about.refine_difference:.1e} (warm start and one evaluation), in units in which actions "
        "fill [-1, 1]."
    )
    return 0
