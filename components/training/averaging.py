"""Averages over time and over workers: EMA weights, and batch statistics shared by all workers."""

import copy

import torch
import torch.distributed as dist
from torch import Tensor, nn


def make_average(model: nn.Module) -> nn.Module:
    """A frozen copy of `model` that `update_average` moves along."""
    return copy.deepcopy(model).requires_grad_(False).eval()


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, updates: int) -> None:
    """Move the average towards the model; early on faster, so that the start does not linger.

    decay is capped at (1 + updates) / (10 + updates). Buffers (batch statistics) are copied.
    """
    rate = 1.0 - min(decay, (1.0 + updates) / (10.0 + updates))
    mine: list[Tensor] = list(average.parameters())
    theirs: list[Tensor] = [p.detach() for p in model.parameters()]
    torch._foreach_lerp_(mine, theirs, rate)
    for a, b in zip(average.buffers(), model.buffers(), strict=True):
        a.copy_(b)


def world_size() -> int:
    """Number of training workers; 1 outside a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@torch.no_grad()
def average_buffers(model: nn.Module) -> None:
    """Make the floating-point buffers (batch statistics) the mean over all workers."""
    if world_size() == 1:
        return
    floats = [b for b in model.buffers() if b.is_floating_point() and b.numel()]
    if not floats:
        return
    flat = torch.cat([b.reshape(-1).float() for b in floats])
    dist.all_reduce(flat)
    flat /= world_size()
    for buffer, part in zip(floats, flat.split([b.numel() for b in floats]), strict=True):
        buffer.copy_(part.view_as(buffer))


def sum_over_workers(values: Tensor) -> Tensor:
    """`values` summed over all workers, in place."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values
