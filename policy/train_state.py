"""Everything that changes while a policy trains, as tensors and JSON values, and back again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim import AdamW

from policy.checkpoint import Checkpoint, TrainingState, load_weights
from policy.config import TrainConfig
from policy.diffusion_policy import DiffusionPolicy
from policy.ema import EMA
from policy.processes import all_whole, shard, spread_like
from policy.random_state import pack_random, seed_everything, unpack_random

LOG = logging.getLogger(__name__)
STEP = "step"  # The one entry of AdamW's state that is a number and not a moment.


@dataclass
class Progress:
    """Where a run is. `loss` is the mean of the last logged interval."""

    step: int = 0
    loss: float | None = None
    unlogged_steps: int = 0
    unlogged_loss: float = 0.0
    evaluated_step: int = 0
    best_success: float | None = None
    best_step: int | None = None


class TrainState:
    """Weights, their average, optimizer, random generators and progress of one run."""

    def __init__(
        self, config: TrainConfig, policy: DiffusionPolicy, accelerator: Accelerator
    ) -> None:
        self.policy = policy.to(accelerator.device).train()
        if config.sharded:
            shard(self.policy, accelerator)
        self.ema = EMA(self.policy, config.ema_decay)
        self.optimizer = make_optimizer(self.policy, config)
        self.progress = Progress()
        self.noise = torch.Generator(accelerator.device)
        self._accelerator = accelerator
        # Processes start from equal weights but must not draw equal noise.
        process_seed = config.seed + 1_000_003 * (accelerator.process_index + 1)
        self.noise.manual_seed(process_seed)
        seed_everything(process_seed)

    def pack(self) -> TrainingState:
        """The state, but for the averaged weights: they are a checkpoint's own."""
        tensors = {
            **_prefixed("model", all_whole(self.policy.state_dict())),
            **_prefixed("optimizer", all_whole(pack_optimizer(self.optimizer))),
            **_prefixed("random", self._gathered(pack_random(self.noise))),
        }
        values = {
            "progress": asdict(self.progress),
            "ema_step": self.ema.state_dict()["step"],
            "processes": self._accelerator.num_processes,
        }
        return TrainingState(tensors, values)

    def unpack(self, saved: Checkpoint) -> None:
        """Go on from a checkpoint; with its random draws, if it had as many processes."""
        state, average = saved.read_state(), saved.read_weights()
        now = self.policy.state_dict()
        weights = _within("model", state.tensors)
        spread = {k: spread_like(v, now[k]) if k in now else v for k, v in weights.items()}
        load_weights(self.policy, spread, saved.path)
        parameters = dict(self.policy.named_parameters())
        kept = {name: spread_like(average[name], value) for name, value in parameters.items()}
        self.ema.load_state_dict({"step": state.values["ema_step"], "average": kept})
        unpack_optimizer(self.optimizer, _within("optimizer", state.tensors))
        self.progress = Progress(**state.values["progress"])
        if state.values["processes"] == self._accelerator.num_processes:
            rank = self._accelerator.process_index
            rows = _within("random", state.tensors)
            # Copies: torch crashes on a generator state that lies unaligned, as rows of a file do.
            unpack_random({key: value[rank].clone() for key, value in rows.items()}, self.noise)
        else:
            LOG.warning(
                "the run had %d processes, now there are %d: random draws start anew.",
                state.values["processes"],
                self._accelerator.num_processes,
            )

    def _gathered(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of all processes, stacked."""
        rows = {key: value[None] for key, value in tensors.items()}
        if self._accelerator.num_processes == 1:
            return rows
        device = self._accelerator.device
        rows = {key: value.to(device) for key, value in rows.items()}
        return {key: self._accelerator.gather(value) for key, value in rows.items()}


def make_optimizer(policy: DiffusionPolicy, config: TrainConfig) -> AdamW:
    """AdamW, fused where torch can; weight decay on matrices only."""
    trained = [p for p in policy.parameters() if p.requires_grad]
    if not trained:
        raise ValueError("the policy has no weight to train: all parameters are frozen.")
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    # One fused kernel is about four times faster than the foreach loop, on a CPU too.
    fused = all(p.device.type in ("cpu", "cuda") for p in trained)
    return AdamW(groups, lr=config.lr, betas=config.betas, fused=fused)


def pack_optimizer(optimizer: AdamW) -> dict[str, Tensor]:
    """What the optimizer has gathered, as `{parameter index}.{name}`; its settings are config."""
    entries = optimizer.state_dict()["state"].items()
    return {f"{index}.{name}": value for index, entry in entries for name, value in entry.items()}


def unpack_optimizer(optimizer: AdamW, tensors: Mapping[str, Tensor]) -> None:
    """Inverse of `pack_optimizer`."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        # Files hold rows in order, but the fused kernel pairs numbers by their place in memory:
        # a moment must lie there as its parameter does, be that channels-last.
        like = value if name == STEP else parameters[int(index)]
        moment = torch.empty_like(like).copy_(spread_like(value, like))
        state.setdefault(int(index), {})[name] = moment
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{key}": value for key, value in tensors.items()}


def _within(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose key starts with `prefix.`, without it."""
    start = f"{prefix}."
    return {key[len(start) :]: value for key, value in tensors.items() if key.startswith(start)}
