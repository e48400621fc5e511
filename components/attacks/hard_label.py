"""Hard-label search: an attack that sees predicted classes alone, no logit and no gradient.

First block-wise noise at the edge of the budget, then a boundary search over sign directions in
the way of RayS (Chen & Gu 2020): flip ever finer blocks of the direction and keep a flip when the
boundary comes nearer. Distance is measured in budgets, r = 1 being the edge of all budgets at
once, so one search serves two modalities with different units.
"""

import torch
from torch import Tensor

from components.attacks.budget import Budget
from components.attacks.gradient import Model, frozen, predict
from components.attacks.losses import fooled
from components.attacks.pgd import start_seeds
from components.attacks.region import Region, rescale
from components.attacks.threat import ThreatModel
from components.batch import Batch
from components.seeds import uniform

_FAR = 32.0  # budgets; the boundary search starts from there
_BISECT = 6


def hard_label(
    model: Model,
    batch: Batch,
    threat: ThreatModel,
    *,
    seed: int,
    queries: int = 200,
) -> Batch:
    """Clips found wrong within the budget, else the end of the budget along the best direction.

    At most `queries` + 7 forward passes a clip, a fifth of them noise. A clip leaves as soon as it
    is fooled within the budget, or when its own queries are spent.
    """
    region = threat.region(batch)
    if not region.names:
        return batch
    adv = region.start()
    seeds = start_seeds(region, seed, "hard_label")
    with frozen(model) as net:
        found = _Search(net, region, seeds, queries)
        for turn in range(queries // 5):
            found.noise(turn)
            found.settle(adv)
            if not found.open():
                return region.finish(adv)
        found.begin()
        found.settle(adv)
        level, block, part = 0, 0, 0
        while found.open():
            found.flip(part, level, block)
            found.settle(adv)
            part += 1
            if part == len(region.names):
                part, block = 0, block + 1
            if block == 2**level:
                level, block = level + 1, 0
    return region.finish(adv)


class _Search:
    """The clips still standing: sign direction, best radius in budgets, and queries spent."""

    def __init__(self, net: Model, region: Region, seeds: dict[str, Tensor], queries: int) -> None:
        self.net, self.region, self.seeds = net, region, seeds
        self.sign = {m: torch.ones_like(x) for m, x in region.clean.items()}
        size, device = region.batch.size, region.batch.label.device
        self.radius = torch.full((size,), torch.inf, device=device)
        self.index = torch.arange(size, device=device)
        self.queries = queries
        self.spent = torch.zeros_like(self.index)

    def open(self) -> bool:
        """Whether any clip still stands."""
        return self.index.numel() > 0

    def noise(self, turn: int) -> None:
        """One query at the edge of the budget, with random signs that are alike in blocks."""
        signs = {}
        for name, x in self.region.clean.items():
            count = min(4 ** (1 + turn % 6), x[0].numel())
            draw = (uniform(self.seeds[name], (count,), stream=turn + 1) < 0.5).float() * 2 - 1
            block = torch.arange(x[0].numel(), device=x.device) * count // x[0].numel()
            signs[name] = draw[:, block].reshape(x.shape)
        hit = self._fools(signs, torch.ones_like(self.radius))
        self._keep(signs, hit, torch.ones_like(self.radius))

    def begin(self) -> None:
        """Where along the first direction the boundary lies."""
        far = torch.full_like(self.radius, _FAR)
        hit = self._fools(self.sign, far)
        self._keep(self.sign, hit, far)
        self._bisect(hit)

    def flip(self, part: int, level: int, block: int) -> None:
        """Turn one block's signs round; where the nearer side is fooled, find the new boundary."""
        name = self.region.names[part]
        count = self.sign[name][0].numel()
        place = torch.arange(count, device=self.radius.device) * 2**level // count
        turned = torch.where(place == block, -1.0, 1.0).reshape(self.sign[name].shape[1:])
        signs = {**self.sign, name: self.sign[name] * turned}
        reach = self.radius.clamp(max=_FAR)
        hit = self._fools(signs, reach)
        self._keep(signs, hit, reach)
        self._bisect(hit)

    def _bisect(self, hit: Tensor) -> None:
        """Narrow the radius of the clips at `hit`; the loop is skipped when there are none."""
        if not bool(hit.any()):
            return
        low, high = torch.zeros_like(self.radius), self.radius.clone()
        for _ in range(_BISECT):
            middle = torch.where(hit, (low + high) / 2, torch.ones_like(low))
            inside = self._fools(self.sign, middle, hit)
            high = torch.where(hit & inside, middle, high)
            low = torch.where(hit & ~inside, middle, low)
        self.radius = torch.where(hit, high, self.radius)

    def _fools(self, sign: dict[str, Tensor], radius: Tensor, only: Tensor | None = None) -> Tensor:
        """bool [B]: whether the model errs at `radius` budgets along `sign`; one query."""
        self.spent += 1 if only is None else only.long()
        adv = {m: self._at(m, s, radius) for m, s in sign.items()}
        batch = self.region.batch
        if only is None:
            return fooled(predict(self.net, batch, adv), batch.label)
        chosen = only.nonzero().flatten()
        part = batch.select(chosen)
        hit = torch.zeros_like(only)
        logits = predict(self.net, part, {m: x[chosen] for m, x in adv.items()})
        hit[chosen] = fooled(logits, part.label)
        return hit

    def _at(self, name: str, sign: Tensor, radius: Tensor) -> Tensor:
        budget, clean = self.region.budgets[name], self.region.clean[name]
        _, _, mask = self.region.limits(name)
        delta = sign if mask is None else sign * mask
        if budget.norm == "L2":
            delta = rescale(delta.clone(), 1.0)
        x = clean + delta * (budget.eps * radius).reshape(-1, 1, 1, 1, 1)
        inside = self.region.project_({name: x.clone()})[name]
        # Beyond the budget only the bounds of the values hold: those points are never returned.
        beyond = (radius > 1.0).reshape(-1, 1, 1, 1, 1)
        return torch.where(beyond, _within(x, budget), inside)

    def _keep(self, sign: dict[str, Tensor], where: Tensor, radius: Tensor) -> None:
        chosen = where.reshape(-1, 1, 1, 1, 1)
        self.sign = {m: torch.where(chosen, s, self.sign[m]) for m, s in sign.items()}
        self.radius = torch.where(where, radius, self.radius)

    def settle(self, adv: dict[str, Tensor]) -> None:
        """Write finished clips into `adv` and go on with the others."""
        done = (self.radius <= 1.0) | (self.spent >= self.queries)
        if not bool(done.any()):
            return
        edge = self.radius.clamp(max=1.0)
        for name, x in adv.items():
            x[self.index[done]] = self._at(name, self.sign[name], edge)[done]
        left = (~done).nonzero().flatten()
        self.region, self.index = self.region.select(left), self.index[left]
        self.radius, self.spent = self.radius[left], self.spent[left]
        self.sign = {m: s[left] for m, s in self.sign.items()}
        self.seeds = {m: s[left] for m, s in self.seeds.items()}


def _within(x: Tensor, budget: Budget) -> Tensor:
    """x held to the bounds of its values alone."""
    return x if budget.low is budget.high is None else x.clamp(budget.low, budget.high)
