"""A SMART-like attack (Wang et al. 2021): fools while the motion stays as it was to the eye.

The perceptual terms are soft and act beside the hard budget: bone lengths and accelerations of
the perturbed skeleton are pulled to the clean ones.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from components.attacks.gradient import Model, Penalty, frozen, value_and_grad
from components.attacks.losses import fooled, margin
from components.attacks.plausible import bones_of
from components.attacks.region import Region
from components.attacks.threat import ThreatModel
from components.batch import Batch


def smart(
    model: Model,
    batch: Batch,
    threat: ThreatModel,
    *,
    seed: int,
    steps: int = 60,
    bone_weight: float = 0.7,
    acceleration_weight: float = 0.3,
    rel_lr: float = 0.1,
) -> Batch:
    """Of the iterates that fool, the one of least perceptual cost; else the last.

    Adam from the clean clip on margin - cost, where cost is the weighted mean square change of
    bone lengths and accelerations in units of the skeleton's eps. Video, when it may be touched
    too, follows the same steps without a perceptual term. It draws no random numbers.
    """
    region = threat.region(batch)
    cost = _perceptual(region, bone_weight, acceleration_weight)
    adv, kept = region.start(), region.start()
    first = {m: torch.zeros_like(x) for m, x in adv.items()}
    second = {m: torch.zeros_like(x) for m, x in adv.items()}
    least = torch.full(batch.label.shape, torch.inf, device=batch.label.device)
    with frozen(model) as net:
        for step in range(1, steps + 1):
            logits, value, grads = value_and_grad(net, batch, adv, margin, cost)
            price = margin(logits, batch.label) - value
            better = fooled(logits, batch.label) & (price < least)
            least = torch.where(better, price, least)
            _take(kept, adv, better)
            for name, grad in grads.items():
                grad.nan_to_num_(0.0)
                first[name].mul_(0.9).add_(grad, alpha=0.1)
                second[name].mul_(0.999).addcmul_(grad, grad, value=0.001)
                move = first[name] / (1 - 0.9**step)
                move /= (second[name] / (1 - 0.999**step)).sqrt_().add_(1e-8)
                adv[name].add_(move, alpha=rel_lr * _scale(region, name))
            region.project_(adv)
    _take(kept, adv, least.isinf())
    return region.finish(kept)


def _perceptual(region: Region, bone_weight: float, acceleration_weight: float) -> Penalty:
    """The cost [B] of a perturbed skeleton; zero when only the video may be touched."""
    batch = region.batch

    def cost(adv: Mapping[str, Tensor]) -> Tensor:
        if "skeleton" not in adv:
            return torch.zeros(batch.size, device=batch.label.device)
        unit = max(_scale(region, "skeleton"), 1e-12)
        before, after = bones_of(batch.skeleton), bones_of(adv["skeleton"])
        # The root has no gradient at zero, where absent persons' bones are.
        change = (after.square().sum(1) + 1e-12).sqrt() - (before.square().sum(1) + 1e-12).sqrt()
        total = bone_weight * (change / unit).square().flatten(1).mean(dim=1)
        if batch.skeleton.shape[2] >= 3:
            delta = (adv["skeleton"] - batch.skeleton) / unit
            bend = delta[:, :, 2:] - 2 * delta[:, :, 1:-1] + delta[:, :, :-2]
            total = total + acceleration_weight * bend.square().flatten(1).mean(dim=1)
        return total

    return cost


def _scale(region: Region, name: str) -> float:
    """What a full perturbation is worth per coordinate."""
    budget = region.budgets[name]
    if budget.norm == "Linf":
        return budget.eps
    return budget.eps / region.clean[name][0].numel() ** 0.5


def _take(kept: dict[str, Tensor], adv: Mapping[str, Tensor], where: Tensor) -> None:
    chosen = where.reshape(-1, 1, 1, 1, 1)
    for name, x in adv.items():
        torch.where(chosen, x, kept[name], out=kept[name])
