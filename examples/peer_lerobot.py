"""How long LeRobot's DiffusionPolicy takes for a training step and a chunk, to hold Prise against.

In a virtual environment of its own, never in Prise's:

    python3.12 -m venv peer && peer/bin/pip install lerobot==0.6.1 diffusers
    peer/bin/python examples/peer_lerobot.py

The same sizes as `experiment=resnet18_unet`: ResNet-18 with GroupNorm on one 96 x 96 camera, two
frames, 16 actions, U-Net 256/512/1024, DDIM with 10 steps, batches of 32, two threads.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

THREADS, BATCH, FRAMES, CHUNK = 2, 32, 2, 16
STATE, IMAGE, ACTION = "observation.state", "observation.image", "action"
STATE_DIM, ACTION_DIM, SIDE = 9, 9, 96


def median_ms(work: Callable[[], object], repeats: int) -> float:
    """Median duration of `work` after two calls that do not count."""
    taken = []
    for _ in range(2 + repeats):
        started = time.perf_counter()
        work()
        taken.append(1e3 * (time.perf_counter() - started))
    return statistics.median(taken[2:])


def main() -> None:
    """Print both figures."""
    torch.set_num_threads(THREADS)
    policy = DiffusionPolicy(
        DiffusionConfig(
            input_features={
                STATE: PolicyFeature(FeatureType.STATE, (STATE_DIM,)),
                IMAGE: PolicyFeature(FeatureType.VISUAL, (3, SIDE, SIDE)),
            },
            output_features={ACTION: PolicyFeature(FeatureType.ACTION, (ACTION_DIM,))},
            horizon=CHUNK,
            n_action_steps=8,
            down_dims=(256, 512, 1024),
            pretrained_backbone_weights=None,
            use_group_norm=True,
            noise_scheduler_type="DDIM",
            num_inference_steps=10,
            crop_ratio=0.9,
            device="cpu",
        )
    )
    batch = {
        STATE: torch.rand(BATCH, FRAMES, STATE_DIM),
        IMAGE: torch.rand(BATCH, FRAMES, 3, SIDE, SIDE),
        ACTION: 2 * torch.rand(BATCH, CHUNK, ACTION_DIM) - 1,
        "action_is_pad": torch.zeros(BATCH, CHUNK, dtype=torch.bool),
    }
    optimizer = torch.optim.AdamW(policy.parameters(), 1e-4)

    def step() -> None:
        optimizer.zero_grad()
        loss, _ = policy.forward(dict(batch))
        loss.backward()
        optimizer.step()

    parameters = sum(p.numel() for p in policy.parameters()) / 1e6
    print(f"{parameters:.1f} M parameters, training step {median_ms(step, 6):.0f} ms")
    policy.eval()
    now = {STATE: torch.rand(1, STATE_DIM), IMAGE: torch.rand(1, 3, SIDE, SIDE)}

    def chunk() -> None:
        policy.reset()  # empties the queue of actions, so that each call plans
        with torch.inference_mode():
            policy.select_action(dict(now))

    print(f"chunk {median_ms(chunk, 10):.0f} ms")


if __name__ == "__main__":
    main()
