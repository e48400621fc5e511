"""Auto-PGD (Croce & Hein 2020): PGD that sets its own step size, here one per modality."""

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from components.attacks.best import Best
from components.attacks.gradient import Model, frozen, value_and_grad, value_of
from components.attacks.losses import Loss, dlr_targeted, get_loss
from components.attacks.pgd import start_seeds
from components.attacks.region import Region
from components.attacks.threat import ThreatModel
from components.batch import Batch
from components.errors import UserError

Inputs = dict[str, Tensor]
_LOOK = 5  # steps between two looks at which clips still stand; fixed, so costs stay per clip


def apgd(
    model: Model,
    batch: Batch,
    threat: ThreatModel,
    *,
    seed: int,
    steps: int = 100,
    n_restarts: int = 1,
    loss: str | Loss = "ce",
    rho: float = 0.75,
    early_stop: bool = True,
    name: str = "apgd",
) -> Batch:
    """The first iterate that fools, else the one of highest loss.

    A restart costs `steps` + 1 forward and `steps` backward passes. Algorithm 1 of the paper: steps
    of 2 eps with momentum 0.75, halved at fixed checkpoints when too few steps gained or nothing
    was gained, then on from the best point. Of two modalities each has its own step size, and what
    a step gained is split between them, see `_gains`.
    early_stop: leave out clips already fooled, looking every fifth step; only the cost changes
    Raises ValueError for fewer than one step or restart.
    """
    region = threat.region(batch)
    with frozen(model) as net:
        best = search(
            net, region, get_loss(loss), seed, steps, n_restarts, rho, early_stop, name=name
        )
    return region.finish(best.adv)


def search(
    net: Model,
    region: Region,
    objective: Loss,
    seed: int,
    steps: int,
    n_restarts: int,
    rho: float,
    early_stop: bool,
    *,
    name: str,
    target: Tensor | None = None,
) -> Best:
    """APGD on a frozen model; with `target` [B] it climbs the targeted DLR loss instead."""
    if steps < 1 or n_restarts < 1:
        raise UserError(f"needs steps >= 1 and n_restarts >= 1; got {steps} and {n_restarts}")
    size = region.batch.size
    best = Best(region.clean, region.batch.label)
    open_ = torch.arange(size, device=region.batch.label.device)
    for restart in range(n_restarts):
        if restart and early_stop:
            open_ = (~best.done).nonzero().flatten()
        if open_.numel() == 0:
            break
        zone = region if open_.numel() == size else region.select(open_)
        start = zone.random_start(start_seeds(zone, seed, name, restart))
        towards = None if target is None else target[open_]
        run = _Run(net, zone, objective, start, rho, towards)
        for found, index in run.climb(steps, early_stop):
            best.merge(found, open_[index])
    return best


@dataclass
class _Run:
    """One restart on the clips of `region`; x and what follows is per clip."""

    net: Model
    region: Region
    objective: Loss
    x: Inputs
    rho: float
    target: Tensor | None
    old: Inputs = field(init=False)
    grad: Inputs = field(init=False)
    peak: Inputs = field(init=False)
    peak_grad: Inputs = field(init=False)
    eta: Inputs = field(init=False)
    gained: Inputs = field(init=False)
    halved: Inputs = field(init=False)
    value: Tensor = field(init=False)
    peak_value: Tensor = field(init=False)
    checked_value: Tensor = field(init=False)
    best: Best = field(init=False)

    def __post_init__(self) -> None:
        self.best = Best(self.x, self.region.batch.label)
        self.old = _copy(self.x)
        self._look()
        self.peak, self.peak_grad = _copy(self.x), _copy(self.grad)
        self.peak_value = self.checked_value = self.value
        one = torch.ones_like(self.value)
        self.eta = {m: 2.0 * b.eps * one for m, b in self.region.budgets.items()}
        self.gained = {m: torch.zeros_like(one) for m in self.x}
        self.halved = {m: torch.ones_like(one, dtype=torch.bool) for m in self.x}

    def climb(self, steps: int, early_stop: bool) -> list[tuple[Best, Tensor]]:
        """Finished groups of clips: what was found, and their positions in the first region."""
        groups = []
        standing = torch.arange(self.value.numel(), device=self.value.device)
        period, shortest, shrink = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
        since = 0
        for i in range(steps):
            self._step(first=i == 0, last=i == steps - 1)
            since += 1
            if since == period and i < steps - 1:
                self._checkpoint(period)
                since, period = 0, max(period - shrink, shortest)
            if early_stop and i % _LOOK == _LOOK - 1 and bool(self.best.done.any()):
                done = self.best.done
                groups.append((self.best.select(done.nonzero().flatten()), standing[done]))
                open_ = (~done).nonzero().flatten()
                if open_.numel() == 0:
                    return groups
                standing = standing[open_]
                self._select(open_)
        return [*groups, (self.best, standing)]

    def _look(self, last: bool = False) -> None:
        """Loss and gradient where we stand; at the last place of a run the loss alone."""
        climbed = self.objective
        if self.target is not None:
            climbed = partial(dlr_targeted, target=self.target)
        if last:
            logits, self.value = value_of(self.net, self.region.batch, self.x, climbed)
        else:
            logits, self.value, self.grad = value_and_grad(
                self.net, self.region.batch, self.x, climbed
            )
        self.best.see(self.x, logits, self.value)

    def _step(self, first: bool, last: bool) -> None:
        """Move (eq. 4 of the paper), look, and keep what is best."""
        region, before = self.region, self.x
        target = region.step_(_copy(before), _copy(self.grad), self.eta)
        keep = 1.0 if first else 0.75
        mixed = {
            m: before[m] + keep * (target[m] - before[m]) + (1 - keep) * (before[m] - self.old[m])
            for m in before
        }
        self.x, self.old = region.project_(mixed), before
        previous, previous_grad = self.value, self.grad
        self._look(last)
        if last:
            return
        for name, gain in self._gains(previous, previous_grad).items():
            self.gained[name] += gain > 0
        higher = self.value > self.peak_value
        for name in self.x:
            self.peak[name] = _choose(higher, self.x[name], self.peak[name])
            self.peak_grad[name] = _choose(higher, self.grad[name], self.peak_grad[name])
        self.peak_value = torch.maximum(self.value, self.peak_value)

    def _gains(self, previous: Tensor, previous_grad: Inputs) -> Inputs:
        """What the last step gained [B], by modality.

        One modality: the change of the loss, as in the paper. Two: the trapezoid rule on the
        gradient along the step splits that change without a further pass, so that a modality
        that overshoots gets smaller steps while the other keeps its own.
        """
        if len(self.x) == 1:
            return dict.fromkeys(self.x, self.value - previous)
        return {
            m: ((self.grad[m] + previous_grad[m]) * (self.x[m] - self.old[m])).flatten(1).sum(1)
            for m in self.x
        }

    def _checkpoint(self, period: int) -> None:
        """Halve the step sizes that gain too little (conditions 1 and 2), go back to the peak."""
        stuck = self.peak_value <= self.checked_value
        back = torch.zeros_like(stuck)
        for name in self.x:
            halve = (self.gained[name] <= self.rho * period) | (~self.halved[name] & stuck)
            self.eta[name] = torch.where(halve, self.eta[name] / 2, self.eta[name])
            self.halved[name] = halve
            self.gained[name] = torch.zeros_like(self.gained[name])
            back |= halve
        self.checked_value = self.peak_value
        for name in self.x:
            self.x[name] = _choose(back, self.peak[name], self.x[name])
            self.grad[name] = _choose(back, self.peak_grad[name], self.grad[name])
        self.value = torch.where(back, self.peak_value, self.value)

    def _select(self, index: Tensor) -> None:
        self.region, self.best = self.region.select(index), self.best.select(index)
        for name in ("x", "old", "grad", "peak", "peak_grad", "eta", "gained", "halved"):
            setattr(self, name, {m: v[index] for m, v in getattr(self, name).items()})
        for name in ("value", "peak_value", "checked_value"):
            setattr(self, name, getattr(self, name)[index])
        self.target = None if self.target is None else self.target[index]


def _copy(inputs: Inputs) -> Inputs:
    return {m: x.clone() for m, x in inputs.items()}


def _choose(where: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(where.reshape(-1, *[1] * (yes.ndim - 1)), yes, no)
