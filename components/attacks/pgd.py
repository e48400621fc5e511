"""Projected gradient descent (Madry et al. 2018): the attack of training and of every check."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from components.attacks.best import Best
from components.attacks.gradient import Model, frozen, value_and_grad
from components.attacks.losses import Loss, fooled, get_loss
from components.attacks.region import Region
from components.attacks.threat import ThreatModel
from components.batch import Batch
from components.errors import UserError
from components.seeds import clip_seeds


def pgd(
    model: Model,
    batch: Batch,
    threat: ThreatModel,
    *,
    seed: int,
    steps: int = 20,
    rel_alpha: float | None = None,
    random_start: bool = True,
    n_restarts: int = 1,
    loss: str | Loss = "ce",
    label_smoothing: float = 0.0,
    keep: Literal["last", "best"] = "last",
    early_stop: bool = False,
    only: Mapping[str, Tensor] | None = None,
    name: str = "pgd",
) -> Batch:
    """Adversarial clips after `steps` ascent steps in every touched modality at once.

    Exactly `steps` forward and backward passes a restart, none besides, and no host sync.
    rel_alpha:  step length / eps of each modality; None or 0 = 2.5 / steps (Madry)
    keep:       "last" iterate (training), or the "best" of all restarts (evaluation): the first
                iterate seen to fool, else the end of the restart with the highest loss. The last
                iterate has not been through the model; the caller's own check sees it.
    early_stop: clips already fooled take no further step; they stay at the point that fooled
    only:       bool masks [B, ...] by modality that narrow what may change (sparse frames)
    name:       enters the seed of the random start, so that two attacks start apart
    Raises ValueError for a negative number of steps or no restart.
    """
    if steps < 0 or n_restarts < 1:
        raise UserError(f"needs steps >= 0 and n_restarts >= 1; got {steps} and {n_restarts}")
    objective = get_loss(loss, label_smoothing)
    region = threat.region(batch, only)
    relative = rel_alpha or 2.5 / max(steps, 1)
    alpha = {m: relative * budget.eps for m, budget in region.budgets.items()}
    # Training keeps the last iterate and has no use for a record of the best.
    best = Best(region.clean, batch.label) if keep == "best" or early_stop else None
    adv = region.start()
    with frozen(model) as net:
        for restart in range(n_restarts):
            if random_start:
                adv = region.random_start(start_seeds(region, seed, name, restart))
            elif restart:
                break  # without a random start every restart is the same
            if early_stop and best is not None:
                value = _run_early(net, region, adv, objective, steps, alpha, best)
            else:
                value = _run(net, region, adv, objective, steps, alpha, best)
            if best is not None:
                best.offer(adv, value)
    return region.finish(adv if best is None or keep == "last" else best.adv)


def start_seeds(region: Region, seed: int, attack: str, restart: int = 0) -> dict[str, Tensor]:
    """Per-clip seeds of each touched modality by (seed, clip id, attack, restart)."""
    ids, device = region.batch.clip_id, region.batch.label.device
    return {m: clip_seeds(seed, ids, f"{attack}/{restart}/{m}", device) for m in region.names}


def _run(
    net: Model,
    region: Region,
    adv: dict[str, Tensor],
    objective: Loss,
    steps: int,
    alpha: Mapping[str, float],
    best: Best | None,
) -> Tensor:
    """`steps` steps from `adv`, in place; the loss [B] before the last of them."""
    label = region.batch.label
    value = torch.full(label.shape, -torch.inf, device=label.device)
    for _ in range(steps):
        logits, value, grads = value_and_grad(net, region.batch, adv, objective)
        if best is not None:
            best.see(adv, logits, value)
        region.step_(adv, grads, alpha)
    return value


def _run_early(
    net: Model,
    region: Region,
    adv: dict[str, Tensor],
    objective: Loss,
    steps: int,
    alpha: Mapping[str, float],
    best: Best,
) -> Tensor:
    """As `_run`, on the shrinking set of clips that no restart has fooled (a host sync a step)."""
    value = torch.full_like(best.value, -torch.inf)
    standing = (~best.done).nonzero().flatten()
    if standing.numel() == 0:
        return value
    zone, moving = region.select(standing), {m: x[standing] for m, x in adv.items()}
    for _ in range(steps):
        logits, now, grads = value_and_grad(net, zone.batch, moving, objective)
        value[standing] = now.to(value.dtype)
        hit = fooled(logits, zone.batch.label)
        if bool(hit.any()):
            for name, x in moving.items():
                adv[name][standing[hit]] = best.adv[name][standing[hit]] = x[hit]
            best.done[standing[hit]] = True
            open_ = (~hit).nonzero().flatten()
            moving = {m: x[open_] for m, x in moving.items()}
            zone, standing = zone.select(open_), standing[open_]
            if standing.numel() == 0:
                break
            grads = {m: g[open_] for m, g in grads.items()}
        zone.step_(moving, grads, alpha)
    for name, x in moving.items():
        adv[name][standing] = x
    return value
