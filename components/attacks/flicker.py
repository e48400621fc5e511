"""Flicker (Pony et al. 2021): every frame is shifted as a whole, a change of light or of place.

Video: one offset per frame and channel. Skeleton: one offset per frame, axis and person, which
shakes a person without bending it.
"""

import torch
from torch import Tensor

from components.attacks.best import Best
from components.attacks.gradient import Model, frozen, value_and_grad
from components.attacks.losses import Loss, get_loss
from components.attacks.region import Region
from components.attacks.threat import ThreatModel
from components.batch import Batch

_SPACE = {"rgb": (3, 4), "skeleton": (3,)}  # the axes along which an offset is constant


def flicker(
    model: Model,
    batch: Batch,
    threat: ThreatModel,
    *,
    seed: int,
    steps: int = 20,
    rel_alpha: float | None = None,
    loss: str | Loss = "margin",
) -> Batch:
    """PGD over the offsets, from zero; values that would leave their bounds are cut there.

    Keeps the first iterate that fools. It draws no random numbers.
    """
    objective = get_loss(loss)
    region = threat.region(batch)
    relative = rel_alpha or 2.5 / max(steps, 1)
    offset = {m: torch.zeros_like(x.mean(_SPACE[m], keepdim=True)) for m, x in region.clean.items()}
    adv = region.start()
    best = Best(adv, batch.label)
    value = best.value
    with frozen(model) as net:
        for _ in range(steps):
            logits, value, grads = value_and_grad(net, batch, adv, objective)
            best.see(adv, logits, value)
            for name, grad in grads.items():
                _ascend_(region, name, offset[name], grad, relative)
            adv = region.project_({m: x + offset[m] for m, x in region.clean.items()})
    best.offer(adv, value)
    return region.finish(best.adv)


def _ascend_(region: Region, name: str, offset: Tensor, grad: Tensor, relative: float) -> None:
    """One step of the offsets within the budget, in place."""
    clean, budget = region.clean[name], region.budgets[name]
    _, _, mask = region.limits(name)
    seen = grad.nan_to_num_(0.0) if mask is None else grad.nan_to_num_(0.0) * mask
    common = seen.sum(_SPACE[name], keepdim=True)
    if budget.norm == "Linf":
        offset.add_(common.sign_(), alpha=relative * budget.eps)
        offset.clamp_(-budget.eps, budget.eps)
        return
    # The length of a spread offset: each value counts once per pixel or joint.
    spread = (clean[0].numel() / offset[0].numel()) ** 0.5
    largest = budget.eps / spread
    size = common.flatten(1).norm(dim=1).clamp(min=1e-30).reshape(-1, 1, 1, 1, 1)
    offset.add_(common / size, alpha=relative * largest)
    size = offset.flatten(1).norm(dim=1).clamp(min=1e-30).reshape(-1, 1, 1, 1, 1)
    offset.mul_((largest / size).clamp(max=1.0))
