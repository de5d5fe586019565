"""What several training processes share: the loss of the joint batch, and spread weights.

    plain      each process holds all weights, their average and the optimizer's moments (DDP)
    sharded    each holds its part of all three, and the whole weights while a step runs (FSDP2)

Files always hold whole tensors, so a run goes on in any number of processes, sharded or not.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from data.dataset import Batch
from policy.diffusion_policy import DiffusionPolicy


class LossModule(nn.Module):
    """`policy.loss` as a forward pass: DDP and autocast hook in there."""

    def __init__(self, policy: DiffusionPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, batch: Batch, noise: torch.Generator) -> Tensor:
        """Mean loss of the batch, a scalar."""
        return self.policy.loss(batch, noise)


def shard(policy: DiffusionPolicy, accelerator: Accelerator) -> None:
    """Spread the weights over all processes, in place; nothing to do for a single one."""
    if accelerator.num_processes == 1:
        return
    for parameter in policy.parameters():  # FSDP takes no channels-last weights
        parameter.data = parameter.data.contiguous()
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    fully_shard(policy, mesh=mesh)
    register_fsdp_forward_method(policy, "loss")


def loss_module(policy: DiffusionPolicy, accelerator: Accelerator) -> nn.Module:
    """The policy's loss, with what its processes need around it."""
    if accelerator.distributed_type == DistributedType.FSDP:
        raise ValueError(
            "accelerate's FSDP is on, which would leave the averaged weights whole: launch without "
            "--use_fsdp and set train.sharded=true."
        )
    # What is sharded reduces its gradients by itself: no DDP, but autocast.
    sharded = isinstance(policy, FSDPModule)
    module: nn.Module = accelerator.prepare_model(LossModule(policy), evaluation_mode=sharded)
    return module


def joint_loss(loss: Tensor, valid: Tensor, accelerator: Accelerator) -> Tensor:
    """The loss, weighted so that its mean over processes is that of the joint batch.

    Each process has the mean over its own valid actions, of which some have more than others.
    """
    if accelerator.num_processes == 1:
        return loss
    count = valid.sum(dtype=loss.dtype)
    mean: Tensor = accelerator.reduce(count.clone(), "mean")
    return loss * count / mean.clamp(min=1e-9)  # where no action is valid the loss is 0


def whole(tensor: Tensor) -> Tensor:
    """The tensor, gathered where it is spread; all processes must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def all_whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`whole` of each."""
    # Sorted: what was read from a file lies in another order in each process.
    return {key: whole(tensors[key]) for key in sorted(tensors)}


def spread_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, spread as `like` is."""
    if not isinstance(like, DTensor):
        return tensor
    # None: every process cuts its part out of what it has read, and none waits for another.
    full = tensor.to(like.device)
    return distribute_tensor(full, like.device_mesh, like.placements, src_data_rank=None)
