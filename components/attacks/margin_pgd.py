"""PGD on the margin: what robust accuracy is worth reading off after sixty passes.

PGD on the cross-entropy spreads its gradient over all wrong classes when logits are small and close
together, as bounded heads make them, and follows one class alone when they are large; so it
flatters models by an amount that depends on their head. Here the sharpness is taken from the clip's
own logits, so that the scale of a model's logits decides nothing.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from components.attacks.best import Best
from components.attacks.gradient import Model, frozen, predict, value_and_grad, value_of
from components.attacks.losses import (
    Loss,
    fooled,
    soft_margin,
    spread_of,
    target_margin,
    wrong_logits,
)
from components.attacks.pgd import start_seeds
from components.attacks.region import Region
from components.attacks.threat import ThreatModel
from components.batch import Batch
from components.errors import UserError

# Sharpness at the first and at the last step, in units of 1 / (spread of the clip's wrong logits):
# first several classes pull, then the nearest one.
SOFT, SHARP = 2.0, 16.0
FIRST_STEP = 2.0  # of a cosine down to 0, in eps
MOMENTUM = 0.25  # share of the step before, as in Auto-PGD

# Loss of the clips at some positions [N] when the share `done` of the steps is over.
Objective = Callable[[Tensor, float], Loss]


def margin_pgd(
    model: Model,
    batch: Batch,
    threat: ThreatModel,
    *,
    seed: int,
    steps: int = 9,
    n_targets: int = 3,
    target_steps: int = 6,
    name: str = "margin_pgd",
) -> Batch:
    """The first iterate that fools, else the end of the run that came nearest.

    First `steps` on the soft margin, log sum_{k != y} exp(b z_k) / b - z_y: the margin of Carlini &
    Wagner (2017, f6) with a soft maximum over the wrong classes, whose gradient never fades. b is
    `SOFT` to `SHARP` over the standard deviation of the clip's own wrong logits on clean input.
    Then `target_steps` on z_t - z_y for each of the `n_targets` likeliest wrong classes t in turn
    (with K classes there are at most K - 1). Each run has its own random start; its steps go from
    2 eps down to 0 along a cosine, with the momentum of Auto-PGD (Croce & Hein 2020, eq. 4).

    Of r runs with n steps in all it makes 1 + n + r forward and n backward passes: 59 unless set
    otherwise. Clips that are fooled (or wrong to begin with) take no further step. Raises UserError
    for a negative number, or when there is no step at all.
    """
    if min(steps, n_targets, target_steps) < 0 or steps + n_targets * target_steps < 1:
        raise UserError(
            f"needs steps: got steps={steps}, n_targets={n_targets}, target_steps={target_steps}"
        )
    region = threat.region(batch)
    with frozen(model) as net:
        logits = predict(net, batch, {})
        wrong = wrong_logits(logits, batch.label)
        best = Best(region.clean, batch.label)
        best.done = fooled(logits, batch.label)
        if steps:
            _add(best, net, region, _soft(spread_of(wrong)), steps, seed, f"{name}/soft")
        ranked = wrong.argsort(1, descending=True)
        for turn in range(min(n_targets, logits.shape[1] - 1) if target_steps else 0):
            towards = _towards(ranked[:, turn])
            _add(best, net, region, towards, target_steps, seed, f"{name}/{turn}")
    return region.finish(best.adv)


def _soft(spread: Tensor) -> Objective:
    def objective(clips: Tensor, done: float) -> Loss:
        sharpness = SOFT * (SHARP / SOFT) ** done / spread[clips]
        return lambda output, label: soft_margin(output, label, sharpness)

    return objective


def _towards(target: Tensor) -> Objective:
    def objective(clips: Tensor, done: float) -> Loss:
        wanted = target[clips]
        return lambda output, label: target_margin(output, label, wanted)

    return objective


def _add(
    best: Best, net: Model, region: Region, objective: Objective, steps: int, seed: int, name: str
) -> None:
    """One more run on the clips that still stand."""
    open_ = (~best.done).nonzero().flatten()
    if open_.numel():
        zone = region.select(open_)
        found = _climb(net, zone, lambda i, done: objective(open_[i], done), steps, seed, name)
        best.merge(found, open_)


def _climb(
    net: Model, region: Region, objective: Objective, steps: int, seed: int, name: str
) -> Best:
    """One run from a random start, on the shrinking set of clips that still stand."""
    label = region.batch.label
    best = Best(region.clean, label)
    standing = torch.arange(label.numel(), device=label.device)
    zone, x = region, region.random_start(start_seeds(region, seed, name))
    old = x
    for step in range(steps):
        done = step / steps
        logits, value, grads = value_and_grad(net, zone.batch, x, objective(standing, done))
        hit = fooled(logits, zone.batch.label)
        if bool(hit.any()):
            _keep(best, standing[hit], {m: v[hit] for m, v in x.items()}, value[hit], hit[hit])
            open_ = (~hit).nonzero().flatten()
            if open_.numel() == 0:
                return best
            zone, standing = zone.select(open_), standing[open_]
            x, old, grads = ({m: v[open_] for m, v in part.items()} for part in (x, old, grads))
        length = FIRST_STEP * 0.5 * (1.0 + math.cos(math.pi * done))
        alpha = {m: length * b.eps for m, b in zone.budgets.items()}
        target = zone.step_({m: v.clone() for m, v in x.items()}, grads, alpha)
        if step:
            mixed = {
                m: x[m] + (1.0 - MOMENTUM) * (target[m] - x[m]) + MOMENTUM * (x[m] - old[m])
                for m in x
            }
            target = zone.project_(mixed)
        x, old = target, x
    # Several runs have several ends, and whoever called sees one clip: so each end is looked at.
    logits, value = value_of(net, zone.batch, x, objective(standing, 1.0))
    _keep(best, standing, x, value, fooled(logits, zone.batch.label))
    return best


def _keep(best: Best, index: Tensor, x: Mapping[str, Tensor], value: Tensor, hit: Tensor) -> None:
    """The clips at `index` end at `x`, where the loss is `value`; `hit`: they are fooled there."""
    for modality, changed in x.items():
        best.adv[modality][index] = changed
    best.value[index], best.done[index] = value.to(best.value.dtype), hit
