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
from components.config.train import TrainSection
from components.training.methods import InnerProblem, Method, method_of

# Largest norm of the gradient. Adversarial batches now and then bring one that is many times the
# usual; 1.0 cuts those and leaves most steps as they are. No run was better with another bound.
GRAD_CLIP = 1.0


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
class TrainTarget:
    """What a step works on: `wrapped` is `module` itself or its DDP wrapper."""

    module: nn.Module
    wrapped: nn.Module
    optimizer: Optimizer


def train_step(
    target: TrainTarget,
    batch: Batch,
    threat: ThreatModel,
    train: TrainSection,
    *,
    seed: int,
    rollbacks: int = 0,
    loss_divisor: float | None = None,
    method: Method | None = None,
) -> StepResult:
    """One step on this worker's clips: one update of the weights (Free: one for each replay).

    rollbacks: so many doublings of the attack's steps, after catastrophic overfitting.
    loss_divisor: what the sum of losses is divided by, None = this batch's clips. With several
    workers it is the global batch's clips over the number of workers: then DDP's mean of gradients
    is the mean over all clips, however unevenly they are spread.
    method: in place of the one that `train.method` names.
    Raises NonFiniteLoss, on all workers at the same step, before the weights are touched, and
    UserError for a method that does not exist.
    """
    method = method or method_of(train.method)
    divisor = float(batch.size if loss_divisor is None else loss_divisor)
    parts = _split(batch, train.accumulate)
    crafted: list[Batch | None] = [None] * len(parts)
    result = StepResult(torch.zeros(()), torch.zeros(()), torch.zeros(()), 0, 0, 0)
    for _ in range(method.passes(train, rollbacks)):
        with _autocast(batch, train.amp):
            examples = [
                method.craft(
                    InnerProblem(target.module, part, threat, train, seed, rollbacks, previous)
                )
                for part, previous in zip(parts, crafted, strict=True)
            ]
        pairs = list(zip(parts, examples, strict=True))
        result = _backward(target, method, pairs, train, divisor)
        _update(target, batch, result)
        crafted = list(examples)
    return result


def _backward(
    target: TrainTarget,
    method: Method,
    pairs: Sequence[tuple[Batch, Batch]],
    train: TrainSection,
    loss_divisor: float,
) -> StepResult:
    """Leave the mean gradient in the parameters; workers meet once, in the last backward."""
    target.optimizer.zero_grad(set_to_none=True)
    results = []
    for i, (clean, examples) in enumerate(pairs):
        last = i == len(pairs) - 1
        with nullcontext() if last else _no_sync(target.wrapped):
            with _autocast(clean, _amp_of_weights(clean, train)):
                terms = method.minimise(target.wrapped, clean, examples, train)
            (terms.loss.sum() / loss_divisor).backward()
        robust, robust_seen = _right(terms.robust, clean.label)
        right, seen = _right(terms.clean, clean.label)
        loss = terms.loss.detach().sum()
        results.append(StepResult(loss, robust, right, clean.size, robust_seen, seen))
    return StepResult(*(sum(column[1:], column[0]) for column in zip(*results, strict=True)))


def _right(logits: Tensor | None, label: Tensor) -> tuple[Tensor, int]:
    if logits is None:
        return torch.zeros((), dtype=torch.int64, device=label.device), 0
    return (logits.detach().argmax(1) == label).sum(), label.shape[0]


def _update(target: TrainTarget, batch: Batch, result: StepResult) -> None:
    parameters = [p for p in target.module.parameters() if p.grad is not None]
    norm = nn.utils.clip_grad_norm_(parameters, GRAD_CLIP)
    # The gradient is the mean over workers by now, so all of them see the NaN of any of them and
    # stop at the same step. This is the one place where the host waits for the device.
    if not bool(torch.isfinite(norm)):
        raise NonFiniteLoss(float(result.loss), batch.clip_id)
    target.optimizer.step()


def _autocast(batch: Batch, amp: str) -> AbstractContextManager[None]:
    """bf16 where the settings say so; losses, weights and perturbations stay float32."""
    if amp == "fp32":
        return nullcontext()
    return torch.autocast(batch.rgb.device.type, dtype=torch.bfloat16)


def _amp_of_weights(batch: Batch, train: TrainSection) -> str:
    """The precision of the pass that trains: on CPU always fp32, one pass out of K + 1.

    There, torch 2.13's bf16 weight gradient of a 3x1x1 convolution over two frames holds memory
    that nobody wrote (seen with AVX512-BF16; gradients to the inputs are right).
    """
    return "fp32" if batch.rgb.device.type == "cpu" else train.amp


def _split(batch: Batch, parts: int) -> list[Batch]:
    if parts <= 1 or batch.size <= 1:
        return [batch]
    order = torch.arange(batch.size, device=batch.label.device)
    return [batch.select(rows) for rows in order.chunk(min(parts, batch.size))]


def _no_sync(wrapped: nn.Module) -> AbstractContextManager[None]:
    if isinstance(wrapped, nn.parallel.DistributedDataParallel):
        return wrapped.no_sync()
    return nullcontext()
