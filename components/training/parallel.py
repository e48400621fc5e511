"""Several workers on one model: the DDP wrapper, and whether all parameters take part."""

import torch
from torch import nn

from components.batch import Batch
from components.config.train import TrainSection
from components.training.averaging import world_size
from components.training.methods import method_of


def wrap(model: nn.Module, device: torch.device, unused: bool) -> nn.Module:
    """The DDP wrapper of `model`, or `model` itself when there is one worker.

    `unused`: some parameters get no gradient; DDP must then look for them in every step.
    """
    if world_size() == 1:
        return model
    # Batch statistics stay each worker's own until the end of the epoch: no traffic in forward.
    return nn.parallel.DistributedDataParallel(
        model,
        device_ids=[device.index] if device.type == "cuda" else None,
        forward_sync_buffers=False,
        find_unused_parameters=unused,
    )


def has_unused(model: nn.Module, batch: Batch, train: TrainSection) -> bool:
    """Whether the method's loss leaves a parameter of `model` without gradient.

    Looks in evaluation mode, so that batch statistics stay; the mode is restored.
    """
    training = model.training
    model.eval()
    terms = method_of(train.method).minimise(model, batch, batch, train)
    trained = [p for p in model.parameters() if p.requires_grad]
    grads = torch.autograd.grad(terms.loss.sum(), trained, allow_unused=True)
    model.train(training)
    return any(grad is None for grad in grads)
