"""Attacks of an evaluation go through a faster form of the model, where it computes the same.

Verdicts do not: what an attack found is always judged by the model itself.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from components.attacks.folding import conv_norm_pairs, folded
from components.batch import Batch, logits_of

CLIPS = 16  # clips on which both forms are compared
CLOSE = 1e-4  # difference of logits that rounding alone makes, as a share of the largest


@contextmanager
def faster(models: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, these frozen models are folded."""
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(folded(model))
        yield


@torch.no_grad()
def foldable(model: nn.Module, clips: Batch) -> bool:
    """Whether the folded form of a frozen model gives the same logits, looked at on some clips.

    A user's own model may run the layers of a Sequential in another order than they stand in, or
    draw random numbers; such a model is attacked as it is.
    """
    if not conv_norm_pairs(model):
        return False
    some = clips.select(torch.arange(min(CLIPS, clips.size), device=clips.label.device))

    def logits() -> Tensor:
        return logits_of(model(some.rgb, some.skeleton, some.present)).float()

    plain = logits()
    with folded(model):
        difference = (logits() - plain).abs().max()
    return bool(difference <= CLOSE * plain.abs().max())  # False too for what is no number
