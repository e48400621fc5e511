"""One training step: attack the plain module, then one forward and backward through DDP.

Needs torch and numpy only, so it runs in a notebook and in the benchmarks as it is. The attack sees
the unwrapped module with frozen parameters and fixed batch statistics and takes gradients for the
inputs alone; nothing is synchronised until the backward pass that updates the weights.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from components.attacks import ThreatModel
from components.batch import Batch
from components.training.awp import perturb_weights
from components.training.craft import Inner
from components.training.methods import METHODS, Method
from components.training.recipe import Recipe


class NonFiniteLoss(RuntimeError):
    """The gradient holds NaN or infinity; `clip_ids` are this worker's clips of that step.

    epoch and step (from 1) are filled in by the loop.
    """

    epoch = 0
    step = 0

    def __init__(self, loss: float, clip_ids: tuple[str, ...]) -> None:
        super().__init__(f"the loss or its gradient is not finite (loss {loss})")
        self.loss = loss
        self.clip_ids = clip_ids


class StepResult(NamedTuple):
    """Sums over this worker's clips of one step, still on the device (reading them waits).

    loss: sum of the per-clip losses; robust, clean: clips classified rightly with and without the
    training attack, out of the `robust_seen`, `clean_seen` clips for which the method looked.
    """

    loss: Tensor
    robust: Tensor
    clean: Tensor
    clips: int
    robust_seen: int
    clean_seen: int


@dataclass(frozen=True)
class Trainee:
    """What a step works on: `wrapped` is `module` itself or its DDP wrapper."""

    module: nn.Module
    wrapped: nn.Module
    optimizer: Optimizer


def train_step(
    trainee: Trainee,
    batch: Batch,
    threat: ThreatModel,
    recipe: Recipe,
    *,
    seed: int,
    share: float | None = None,
) -> StepResult:
    """One step on this worker's clips: one update of the weights (Free: one for each replay).

    share: what the loss is divided by, None = this batch's clips. With several workers it is the
    global batch's clips over the number of workers: then DDP's mean of gradients is the mean over
    all clips, however unevenly they are spread.
    Raises NonFiniteLoss, on all workers at the same step, before the weights are touched.
    """
    method = METHODS[recipe.method]
    share = float(batch.size if share is None else share)
    parts = _split(batch, recipe.accumulate)
    crafted: list[Batch | None] = [None] * len(parts)
    result = StepResult(torch.zeros(()), torch.zeros(()), torch.zeros(()), 0, 0, 0)
    for _ in range(method.passes(recipe)):
        with _autocast(batch, recipe.amp):
            examples = [
                method.craft(Inner(trainee.module, part, threat, recipe, seed, before))
                for part, before in zip(parts, crafted, strict=True)
            ]
        pairs = list(zip(parts, examples, strict=True))
        result = _backward(trainee, method, pairs, recipe, share)
        if recipe.awp:
            with perturb_weights(trainee.module, recipe.awp):
                result = _backward(trainee, method, pairs, recipe, share)
        _update(trainee, recipe, batch, result)
        crafted = list(examples)
    return result


def _backward(
    trainee: Trainee,
    method: Method,
    pairs: Sequence[tuple[Batch, Batch]],
    recipe: Recipe,
    share: float,
) -> StepResult:
    """Leave the mean gradient in the parameters; workers meet once, in the last backward."""
    trainee.optimizer.zero_grad(set_to_none=True)
    results = []
    for i, (clean, examples) in enumerate(pairs):
        last = i == len(pairs) - 1
        with nullcontext() if last else _no_sync(trainee.wrapped):
            with _autocast(clean, _amp_of_weights(clean, recipe)):
                terms = method.minimise(trainee.wrapped, clean, examples, recipe)
            (terms.loss.sum() / share).backward()
        robust, robust_seen = _right(terms.robust, clean.label)
        right, seen = _right(terms.clean, clean.label)
        loss = terms.loss.detach().sum()
        results.append(StepResult(loss, robust, right, clean.size, robust_seen, seen))
    return StepResult(*(sum(column[1:], column[0]) for column in zip(*results, strict=True)))


def _right(logits: Tensor | None, label: Tensor) -> tuple[Tensor, int]:
    if logits is None:
        return torch.zeros((), dtype=torch.int64, device=label.device), 0
    return (logits.detach().argmax(1) == label).sum(), label.shape[0]


def _update(trainee: Trainee, recipe: Recipe, batch: Batch, result: StepResult) -> None:
    parameters = [p for p in trainee.module.parameters() if p.grad is not None]
    norm = nn.utils.clip_grad_norm_(parameters, recipe.grad_clip or torch.inf)
    # The gradient is the mean over workers by now, so all of them see the NaN of any of them and
    # stop at the same step. This is the one place where the host waits for the device.
    if not bool(torch.isfinite(norm)):
        raise NonFiniteLoss(float(result.loss), batch.clip_id)
    trainee.optimizer.step()


def _autocast(batch: Batch, amp: str) -> AbstractContextManager[None]:
    """bf16 where the recipe says so; losses, weights and perturbations stay float32."""
    if amp == "fp32":
        return nullcontext()
    return torch.autocast(batch.rgb.device.type, dtype=torch.bfloat16)


def _amp_of_weights(batch: Batch, recipe: Recipe) -> str:
    """The precision of the pass that trains: on CPU always fp32, one pass out of K + 1.

    There, torch 2.13's bf16 weight gradient of a 3x1x1 convolution over two frames holds memory
    that nobody wrote (seen with AVX512-BF16; gradients to the inputs are right).
    """
    return "fp32" if batch.rgb.device.type == "cpu" else recipe.amp


def _split(batch: Batch, parts: int) -> list[Batch]:
    if parts <= 1 or batch.size <= 1:
        return [batch]
    order = torch.arange(batch.size, device=batch.label.device)
    return [batch.select(rows) for rows in order.chunk(min(parts, batch.size))]


def _no_sync(wrapped: nn.Module) -> AbstractContextManager[None]:
    if isinstance(wrapped, nn.parallel.DistributedDataParallel):
        return wrapped.no_sync()
    return nullcontext()
