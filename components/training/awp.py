"""Adversarial weight perturbation: an option on any method (Wu et al., arXiv 2004.05884)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
@torch.no_grad()
def perturb_weights(module: nn.Module, gamma: float) -> Iterator[None]:
    """Move each weight up the gradient that lies in `.grad`, by gamma times its own norm.

    eq. 8 with one step: v = gamma ||w|| g / ||g|| per weight tensor; biases and norm scales (1-d)
    stay. Weights are back, bit for bit, on leaving. The gradient must be the synchronised one, so
    that all workers move to the same place.
    """
    weights: list[Tensor] = [p for p in module.parameters() if p.ndim > 1 and p.grad is not None]
    saved = [p.clone() for p in weights]
    grads = [p.grad for p in weights if p.grad is not None]
    lengths = torch._foreach_norm(weights)
    slopes = torch._foreach_norm(grads)
    for weight, grad, length, slope in zip(weights, grads, lengths, slopes, strict=True):
        weight.add_(grad * (gamma * length / (slope + 1e-12)))
    try:
        yield
    finally:
        for weight, original in zip(weights, saved, strict=True):
            weight.copy_(original)
