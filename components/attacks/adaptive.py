"""Attacks that know the Attention Modality Reweighter and aim at what it adds to a model.

Each climbs a loss that reaches into `ModelOutput.weights` or `.aux` and is run by APGD; success is
judged, as always, on the fused logits alone. `applicable` tells which of them a model can meet.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from components.attacks.apgd import apgd
from components.attacks.best import Best
from components.attacks.gradient import Model, frozen, value_and_grad
from components.attacks.losses import Loss, cross_entropy, margin_loss
from components.attacks.pgd import start_seeds
from components.attacks.threat import MODALITIES, ThreatModel
from components.batch import Batch, ModelOutput
from components.errors import UserError


def attention(
    model: Model,
    batch: Batch,
    threat: ThreatModel,
    *,
    seed: int,
    trust: str = "touched",
    weight: float = 1.0,
    steps: int = 50,
) -> Batch:
    """Cross-entropy plus a push of the modality weights, by APGD.

    trust: the modality the fusion shall be made to trust. "touched" is the perturbed one, whose
           noise then counts in full; "other" leaves the model with less than it needs. When both
           are perturbed these stand for "rgb" and "skeleton", which can also be named.
    Raises ValueError when the threat model allows no modality, or the model has no weights.
    """
    touched = _touched(threat)
    trusted = {"touched": touched[0], "other": MODALITIES[1 - MODALITIES.index(touched[0])]}
    name = trusted.get(trust, trust)
    if name not in MODALITIES:
        raise UserError(f"trust must be touched, other, rgb or skeleton; got {trust!r}")
    loss = partial(_attention, column=MODALITIES.index(name), weight=weight)
    return apgd(model, batch, threat, seed=seed, steps=steps, loss=loss, name=f"attention/{trust}")


def heads(model: Model, batch: Batch, threat: ThreatModel, *, seed: int, steps: int = 50) -> Batch:
    """Cross-entropy of the fused logits and of every auxiliary head together, by APGD."""
    return apgd(model, batch, threat, seed=seed, steps=steps, loss=_heads, name="heads")


def weakest_head(
    model: Model, batch: Batch, threat: ThreatModel, *, seed: int, steps: int = 50
) -> Batch:
    """Margin of the fused logits plus that of the head that holds best, by APGD.

    Against a re-weighting of logits: as long as one head is right the fusion can turn to it.
    """
    return apgd(model, batch, threat, seed=seed, steps=steps, loss=_weakest, name="weakest_head")


def cross(
    model: Model,
    batch: Batch,
    threat: ThreatModel,
    *,
    seed: int,
    steps: int = 50,
) -> Batch:
    """Each modality climbs the loss of the other's head, then both the fused margin.

    It uses the paths by which one stream steers the other (gates, attention). For the first half
    of `steps` a modality follows the other head's cross-entropy plus the fused one; the second
    half climbs the fused margin from there. Keeps the first iterate that fools.
    Raises ValueError when the threat model allows no modality, or the model has no heads.
    """
    _touched(threat)
    region = threat.region(batch)
    alpha = {m: 2.5 / max(steps, 1) * b.eps for m, b in region.budgets.items()}
    other = {"rgb": "skeleton", "skeleton": "rgb"}
    losses: dict[str, Loss] = {m: partial(_cross, head=other[m]) for m in region.names}
    adv = region.random_start(start_seeds(region, seed, "cross"))
    best = Best(region.clean, batch.label)
    value = best.value
    with frozen(model) as net:
        for step in range(steps):
            climbed = losses if step < steps // 2 else _fused_margin
            logits, _, grads = value_and_grad(net, batch, adv, climbed)
            # Judged by one measure throughout, although two are climbed.
            value = margin_loss(logits.float(), batch.label)
            best.see(adv, logits, value)
            region.step_(adv, grads, alpha)
    best.offer(adv, value)
    return region.finish(best.adv)


ADAPTIVE: dict[str, Callable[..., Batch]] = {
    "attention_touched": partial(attention, trust="touched"),
    "attention_other": partial(attention, trust="other"),
    "heads": heads,
    "weakest_head": weakest_head,
    "cross": cross,
}
_NEEDS = {"attention_touched": "weights", "attention_other": "weights"}


def applicable(model: Model, batch: Batch) -> tuple[str, ...]:
    """Names of the adaptive attacks this model can meet, from one forward pass of one clip."""
    first = batch.select(torch.tensor([0], device=batch.label.device))
    with frozen(model) as net, torch.no_grad():
        output = net(first.rgb, first.skeleton, first.present)
    if isinstance(output, Tensor):
        return ()
    return tuple(n for n in ADAPTIVE if getattr(output, _NEEDS.get(n, "aux")))


def _touched(threat: ThreatModel) -> list[str]:
    if not threat.budgets:
        raise UserError(
            "this attack needs a modality that it may touch, and the threat model allows none; "
            "give a budget for rgb or skeleton"
        )
    return list(threat.budgets)


def _attention(output: ModelOutput | Tensor, label: Tensor, column: int, weight: float) -> Tensor:
    weights = _part(output, "weights")
    logs = [
        w[..., column].float().clamp(min=1e-6).log().reshape(len(w), -1).mean(1) for w in weights
    ]
    return cross_entropy(output, label) + weight * torch.stack(logs).mean(dim=0)


def _heads(output: ModelOutput | Tensor, label: Tensor) -> Tensor:
    losses = [cross_entropy(logits, label) for logits in _part(output, "aux")]
    return cross_entropy(output, label) + torch.stack(losses).sum(dim=0)


def _weakest(output: ModelOutput | Tensor, label: Tensor) -> Tensor:
    margins = [margin_loss(logits.float(), label) for logits in _part(output, "aux")]
    return _fused_margin(output, label) + torch.stack(margins).amin(dim=0)


def _cross(output: ModelOutput | Tensor, label: Tensor, head: str) -> Tensor:
    _part(output, "aux")
    assert isinstance(output, ModelOutput)
    return cross_entropy(output, label) + cross_entropy(output.aux[head], label)


def _fused_margin(output: ModelOutput | Tensor, label: Tensor) -> Tensor:
    logits = output if isinstance(output, Tensor) else output.logits
    return margin_loss(logits.float(), label)


def _part(output: ModelOutput | Tensor, name: str) -> list[Tensor]:
    found = {} if isinstance(output, Tensor) else getattr(output, name)
    if not found:
        raise UserError(
            f"this adaptive attack needs a model that reports ModelOutput.{name}, and this one "
            "does not; ask components.attacks.applicable(model, batch) which ones apply"
        )
    return list(found.values())
