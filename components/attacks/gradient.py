"""One forward and one backward pass to the inputs: the unit of cost of every gradient attack.

Gradients are taken for the touched modalities alone, with the model's parameters frozen, so that
autograd computes no weight gradient and no gradient of an untouched stream.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from components.attacks.counter import count
from components.attacks.losses import Loss
from components.batch import Batch, ModelOutput, logits_of
from components.errors import UserError

Model = Callable[[Tensor, Tensor, Tensor], ModelOutput | Tensor]
Penalty = Callable[[Mapping[str, Tensor]], Tensor]


def unwrap(model: Any) -> Any:
    """The module inside DistributedDataParallel: attacks must not set off its gradient hooks."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


@contextmanager
def frozen(model: Any) -> Iterator[Any]:
    """Eval mode without parameter gradients; on leaving, every flag is what it was.

    Yields the unwrapped model. A plain callable is left alone. Flags are set directly rather than
    by `train()`, which some modules override with side effects.
    """
    if torch.is_inference_mode_enabled():
        raise UserError("attacks need gradients: got torch.inference_mode(), use torch.no_grad()")
    model = unwrap(model)
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [module.training for module in modules]
    trained = [p for m in modules[:1] for p in m.parameters() if p.requires_grad]
    try:
        for module in modules:
            module.training = False
        for parameter in trained:
            parameter.requires_grad_(False)
        yield model
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        for parameter in trained:
            parameter.requires_grad_(True)


def forward(model: Model, batch: Batch, adv: Mapping[str, Tensor]) -> ModelOutput | Tensor:
    """The model's output where `adv` replaces the clean modalities."""
    count(model, batch.clip_id, backward=False)
    return model(adv.get("rgb", batch.rgb), adv.get("skeleton", batch.skeleton), batch.present)


@torch.no_grad()
def predict(model: Model, batch: Batch, adv: Mapping[str, Tensor]) -> Tensor:
    """Logits [B, K] in float32 without a graph."""
    return logits_of(forward(model, batch, adv)).float()


@torch.no_grad()
def value_of(
    model: Model, batch: Batch, adv: Mapping[str, Tensor], loss: Loss
) -> tuple[Tensor, Tensor]:
    """(logits [B, K], loss [B]) at `adv`: the forward pass alone."""
    output = forward(model, batch, adv)
    return logits_of(output).float(), loss(output, batch.label)


def value_and_grad(
    model: Model,
    batch: Batch,
    adv: Mapping[str, Tensor],
    loss: Loss | Mapping[str, Loss],
    penalty: Penalty | None = None,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """(logits [B, K], value [B], gradient per modality) at `adv`; all detached.

    `loss` is one objective, or one per modality, each then differentiated for its own modality
    (one backward each; the value is their sum). `penalty` maps the inputs to [B] and is subtracted.
    An input that the model ignores, or hides behind a detach, has a zero gradient.
    """
    with torch.enable_grad():
        leaves = {m: x.detach().requires_grad_(True) for m, x in adv.items()}
        output = forward(model, batch, leaves)
        if isinstance(loss, Mapping):
            values = {m: loss[m](output, batch.label) for m in leaves}
            total = torch.stack([v.detach() for v in values.values()]).sum(0)
            grads: dict[str, Tensor] = {}
            for i, (name, value) in enumerate(values.items()):
                last = i == len(values) - 1
                grads |= _grads(value, {name: leaves[name]}, keep=not last)
                count(model, batch.clip_id, backward=True)
        else:
            total = loss(output, batch.label)
            if penalty is not None:
                total = total - penalty(leaves)
            grads = _grads(total, leaves)
            count(model, batch.clip_id, backward=True)
    return logits_of(output).detach(), total.detach(), grads


def _grads(value: Tensor, leaves: Mapping[str, Tensor], keep: bool = False) -> dict[str, Tensor]:
    if not value.requires_grad:
        return {m: torch.zeros_like(x) for m, x in leaves.items()}
    # Clips do not meet in eval mode, so the gradient of the sum is each clip's own.
    found = torch.autograd.grad(
        value.sum(), list(leaves.values()), retain_graph=keep, allow_unused=True
    )
    return {
        m: torch.zeros_like(x) if g is None else _writable(g)
        for (m, x), g in zip(leaves.items(), found, strict=True)
    }


def _writable(grad: Tensor) -> Tensor:
    """Attacks step in place. The gradient of a plain sum is one number in all places at once."""
    shared = any(step == 0 and n > 1 for step, n in zip(grad.stride(), grad.shape, strict=True))
    return grad.contiguous() if shared else grad
