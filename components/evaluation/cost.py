"""What an attack spends: passes of clips through the model, counted at the model itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Passes:
    """Clips sent forward, and clips whose gradient came back to the input."""

    forward: int = 0
    backward: int = 0


class _Meter(torch.autograd.Function):
    """The identity; adds to the count when a gradient passes back through it."""

    @staticmethod
    def forward(ctx: Any, passes: Passes, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.passes, ctx.clips = passes, inputs[0].shape[0]
        return tuple(x.view_as(x) for x in inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        ctx.passes.backward += ctx.clips
        return None, *grads


@contextmanager
def count_passes(*models: nn.Module) -> Iterator[Passes]:
    """Count every clip that passes through any of `models` inside the block, fill-ups included.

    One clip forward is one pass, one clip backward is one more; so PGD-20 on 8 clips counts 160
    forward and 160 backward, whatever the attack says about itself.
    """
    passes = Passes()

    def before(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        rgb, skeleton, *rest = inputs
        passes.forward += rgb.shape[0]
        if torch.is_grad_enabled():
            # Only what needs a gradient goes through: the rest would gain a useless backward pass.
            if rgb.requires_grad and skeleton.requires_grad:
                rgb, skeleton = _Meter.apply(passes, rgb, skeleton)
            elif rgb.requires_grad:
                (rgb,) = _Meter.apply(passes, rgb)
            elif skeleton.requires_grad:
                (skeleton,) = _Meter.apply(passes, skeleton)
        return rgb, skeleton, *rest

    handles = [model.register_forward_pre_hook(before) for model in models]
    try:
        yield passes
    finally:
        for handle in handles:
            handle.remove()
