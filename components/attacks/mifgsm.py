"""MI-FGSM (Dong et al. 2018): momentum over normalised gradients, which transfers better."""

import torch

from components.attacks.best import Best
from components.attacks.gradient import Model, frozen, value_and_grad
from components.attacks.losses import Loss, get_loss
from components.attacks.threat import ThreatModel
from components.batch import Batch


def mifgsm(
    model: Model,
    batch: Batch,
    threat: ThreatModel,
    *,
    seed: int,
    steps: int = 20,
    decay: float = 1.0,
    rel_alpha: float | None = None,
    loss: str | Loss = "ce",
) -> Batch:
    """`steps` steps of eps / steps from the clean clip along the accumulated gradient.

    Each modality has its own momentum, of gradients divided by their mean absolute value
    (algorithm 1 there). It draws no random numbers. Keeps the first iterate that fools.
    """
    objective = get_loss(loss)
    region = threat.region(batch)
    alpha = {m: (rel_alpha or 1.0 / max(steps, 1)) * b.eps for m, b in region.budgets.items()}
    adv = region.start()
    best = Best(adv, batch.label)
    momentum = {m: torch.zeros_like(x) for m, x in adv.items()}
    value = best.value
    with frozen(model) as net:
        for _ in range(steps):
            logits, value, grads = value_and_grad(net, batch, adv, objective)
            best.see(adv, logits, value)
            for name, grad in grads.items():
                grad.nan_to_num_(0.0)
                size = grad.abs().flatten(1).mean(dim=1).clamp(min=1e-30)
                momentum[name].mul_(decay).add_(grad / size.reshape(-1, 1, 1, 1, 1))
            region.step_(adv, {m: v.clone() for m, v in momentum.items()}, alpha)
    best.offer(adv, value)
    return region.finish(best.adv)
