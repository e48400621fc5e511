"""PGD on the margin: what robust accuracy is worth reading off after sixty passes.

PGD on the cross-entropy spreads its gradient over all wrong classes when logits are small and close
together, as bounded heads make them, and follows one class alone when they are large; so it
flatters models by an amount that depends on their head. Here the sharpness is taken from the clip's
own logits, so that the scale of a model's logits decides nothing.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from components.attacks.best import Best
from components.attacks.gradient import Model, frozen, predict, value_and_grad
from components.attacks.losses import Loss, fooled, soft_margin, target_margin, wrong_logits
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

# Loss of the standing clips (positions [N]) when the share `done` of the steps is over.
Objective = Callable[[Tensor, float], Loss]


def margin_pgd(
    model: Model,
    batch: Batch,
    threat: ThreatModel,
    *,
    seed: int,
    steps: int = 28,
    name: str = "margin_pgd",
) -> Batch:
    """The first iterate that fools, else the end of the run: 1 + `steps` forward, `steps` backward.

    It climbs log sum_{k != y} exp(b z_k) / b - z_y, the margin of Carlini & Wagner (2017, f6) with
    a soft maximum over the wrong classes, whose gradient never fades. b is `SOFT` to `SHARP` over
    the standard deviation of the clip's own wrong logits on the clean input. Steps go from 2 eps
    down to 0 along a cosine, with the momentum of Auto-PGD (Croce & Hein 2020, eq. 4). Clips that
    are fooled take no further step. Raises UserError for fewer than one step.
    """
    region = _region(threat, batch, steps)
    with frozen(model) as net:
        spread = _spread(wrong_logits(predict(net, batch, {}), batch.label))

        def objective(standing: Tensor, done: float) -> Loss:
            sharpness = SOFT * (SHARP / SOFT) ** done / spread[standing]
            return lambda output, label: soft_margin(output, label, sharpness)

        best = _climb(net, region, objective, steps, seed, name)
    return region.finish(best.adv)


def margin_pgd_targeted(
    model: Model,
    batch: Batch,
    threat: ThreatModel,
    *,
    seed: int,
    steps: int = 22,
    n_targets: int = 9,
    name: str = "margin_pgd_t",
) -> Batch:
    """As `margin_pgd`, towards each of the `n_targets` likeliest wrong classes in turn: z_t - z_y.

    A clip that is fooled (or wrong to begin with) meets no further target. With K classes there are
    at most K - 1 targets. Raises UserError for fewer than one step or target.
    """
    region = _region(threat, batch, steps)
    if n_targets < 1:
        raise UserError(f"n_targets must be at least 1, got {n_targets}")
    with frozen(model) as net:
        logits = predict(net, batch, {})
        ranked = wrong_logits(logits, batch.label).argsort(1, descending=True)
        best = Best(region.clean, batch.label)
        best.done = fooled(logits, batch.label)
        for turn in range(min(n_targets, logits.shape[1] - 1)):
            open_ = (~best.done).nonzero().flatten()
            if open_.numel() == 0:
                break
            target = ranked[open_, turn]

            def objective(standing: Tensor, done: float, target: Tensor = target) -> Loss:
                towards = target[standing]
                return lambda output, label: target_margin(output, label, towards)

            found = _climb(net, region.select(open_), objective, steps, seed, f"{name}/{turn}")
            best.merge(found, open_)
    return region.finish(best.adv)


def _region(threat: ThreatModel, batch: Batch, steps: int) -> Region:
    if steps < 1:
        raise UserError(f"steps must be at least 1, got {steps}")
    return threat.region(batch)


def _spread(wrong: Tensor) -> Tensor:
    """Standard deviation [B] of the wrong logits [B, K], -inf at the right class."""
    others = wrong.isfinite()
    count = others.sum(1).clamp(min=1)
    values = torch.where(others, wrong, torch.zeros_like(wrong))
    mean = values.sum(1) / count
    squares = torch.where(others, (wrong - mean[:, None]).square(), torch.zeros_like(wrong))
    return (squares.sum(1) / count).sqrt().clamp(min=1e-6)


def _climb(
    net: Model, region: Region, objective: Objective, steps: int, seed: int, name: str
) -> Best:
    """One run from a random start, on the shrinking set of clips that still stand."""
    label = region.batch.label
    best = Best(region.clean, label)
    standing = torch.arange(label.numel(), device=label.device)
    zone, x = region, region.random_start(start_seeds(region, seed, name))
    old = x
    value = torch.full_like(best.value, -torch.inf)
    for step in range(steps):
        done = step / steps
        loss = objective(standing, done)
        logits, now, grads = value_and_grad(net, zone.batch, x, loss)
        value[standing] = now.to(value.dtype)
        hit = fooled(logits, zone.batch.label)
        if bool(hit.any()):
            for modality, changed in x.items():
                best.adv[modality][standing[hit]] = changed[hit]
            best.done[standing[hit]] = True
            open_ = (~hit).nonzero().flatten()
            if open_.numel() == 0:
                return best
            zone, standing = zone.select(open_), standing[open_]
            x, old, grads = ({m: v[open_] for m, v in part.items()} for part in (x, old, grads))
        length = FIRST_STEP * 0.5 * (1.0 + math.cos(math.pi * done))
        alpha = {m: length * b.eps for m, b in zone.budgets.items()}
        target = zone.step_({m: v.clone() for m, v in x.items()}, grads, alpha)
        if step:
            target = {
                m: x[m] + (1.0 - MOMENTUM) * (target[m] - x[m]) + MOMENTUM * (x[m] - old[m])
                for m in x
            }
            target = zone.project_(target)
        x, old = target, x
    end = Best(zone.start(), zone.batch.label)
    end.offer(x, value[standing])
    best.merge(end, standing)
    return best
