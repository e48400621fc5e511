"""The feasible set around one batch: exact, fused projection, start and step of every attack.

Built once per attack. Linf, mask and bounds together are one box [low, high] per element, so an
Linf projection is a single in-place clamp: where nothing may change, low = high = clean. The box
is rounded inwards, so |adversarial - clean| <= eps holds in float32 without any slack; L2 holds
within TOLERANCE.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.attacks.budget import Budget
from components.attacks.plausible import project_motion
from components.batch import Batch
from components.seeds import normal, uniform, words

TOLERANCE = 1e-6
_TINY = 1e-12
_INF = float("inf")


class Region:
    """What may be reached from `clean`; perturbed clips travel as {modality: x}.

    budgets: of the modalities that may be touched (`names`); `only` narrows them further by bool
    masks that broadcast to the modality's tensor (sparse frames). bone_length, acceleration: the
    bounds on motion of `ThreatModel.region`, which makes regions; None = no bound.
    """

    def __init__(
        self,
        clean: Batch,
        budgets: Mapping[str, Budget],
        only: Mapping[str, Tensor] | None = None,
        *,
        bone_length: float | None = None,
        acceleration: float | None = None,
    ) -> None:
        self.batch = clean
        self.budgets = dict(budgets)
        self.motion: dict[str, Any] = {"bone_length": bone_length, "acceleration": acceleration}
        self.names = tuple(self.budgets)
        self.clean: dict[str, Tensor] = {m: getattr(clean, m).detach() for m in self.names}
        self.mask: dict[str, Tensor | None] = {m: None for m in self.names}
        if "skeleton" in self.budgets:
            self.mask["skeleton"] = clean.present[:, None, :, None, :]
        self.only = dict(only or {})
        for name, extra in self.only.items():
            if name in self.budgets:
                mask = self.mask[name]
                self.mask[name] = extra if mask is None else mask & extra
        self._low: dict[str, Tensor] = {}
        self._high: dict[str, Tensor] = {}
        for name in self.names:
            self._low[name], self._high[name] = self._box(name)

    def _box(self, name: str) -> tuple[Tensor, Tensor]:
        """Lowest and highest value of each element, rounded so that the change never tops eps."""
        x, budget = self.clean[name], self.budgets[name]
        eps = _round_down(budget.eps) if budget.norm == "Linf" else _INF
        bounded = budget.low is not None and budget.high is not None and eps > 1e-4
        if eps < _INF and bounded:
            # One spacing of the largest value covers the rounding of x +- eps: cheaper than looking
            # at every pixel, and 1e-7 smaller.
            eps = _round_down(eps - float(np.spacing(np.float32(_largest(budget) + eps))))
        low, high = x - eps, x + eps
        if eps < _INF and not bounded:
            low = torch.where(x - low > eps, torch.nextafter(low, x), low)
            high = torch.where(high - x > eps, torch.nextafter(high, x), high)
        # A clean value outside the bounds may move towards them, and zero change stays feasible.
        if budget.low is not None:
            low = torch.minimum(low.clamp_(min=budget.low), x, out=low)
        if budget.high is not None:
            high = torch.maximum(high.clamp_(max=budget.high), x, out=high)
        mask = self.mask[name]
        if mask is not None:
            low, high = torch.where(mask, low, x), torch.where(mask, high, x)
        return low, high

    def limits(self, name: str) -> tuple[Tensor, Tensor, Tensor | None]:
        """(low, high, mask) of one modality; the mask is None where everything may change."""
        return self._low[name], self._high[name], self.mask[name]

    def start(self) -> dict[str, Tensor]:
        """The clean clips, as copies an attack may change in place."""
        return {m: x.clone() for m, x in self.clean.items()}

    def random_start(self, seeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A point drawn uniformly from each ball; `seeds` int64 [B, 2] by modality."""
        adv = {}
        for name, x in self.clean.items():
            budget = self.budgets[name]
            if budget.norm == "Linf":
                delta = coarse_uniform(seeds[name], x.shape[1:]).mul_(budget.eps)
            else:
                delta = self._masked(name, normal(seeds[name], x.shape[1:]))
                radius = uniform(seeds[name], (), stream=7) ** (1.0 / delta[0].numel())
                delta = rescale(delta, budget.eps * radius)
            adv[name] = delta.add_(x)
        return self.project_(adv)

    def step_(
        self,
        adv: dict[str, Tensor],
        direction: Mapping[str, Tensor],
        alpha: Mapping[str, float | Tensor],
    ) -> dict[str, Tensor]:
        """One steepest ascent step in each norm and back into the set, all in place.

        `direction` (gradients) is overwritten; `alpha` is the step's length, or one per clip.
        """
        for name, x in adv.items():
            # A NaN gradient (the root of a zero length) must not poison a clip: it counts as zero,
            # which is what torch.sign makes of it.
            grad, length = direction[name], alpha[name]
            if self.budgets[name].norm == "L2":
                grad.nan_to_num_(0.0)
                # By the largest entry first: a tiny gradient's squares must not underflow.
                largest = grad.abs().amax(dim=tuple(range(1, grad.ndim)), keepdim=True)
                x.add_(rescale(self._masked(name, grad.div_(largest.clamp_(min=1e-38))), length))
            elif isinstance(length, Tensor):
                x.add_(torch.sign(grad, out=grad).mul_(_per_clip(length, grad)))
            else:
                x.add_(torch.sign(grad, out=grad), alpha=length)
        return self.project_(adv)

    def project_(self, adv: dict[str, Tensor], final: bool = False) -> dict[str, Tensor]:
        """Back into the set, in place. `final` also repairs NaN and measures in double."""
        for name, x in adv.items():
            budget, clean = self.budgets[name], self.clean[name]
            low, high = self._low[name], self._high[name]
            if final:
                torch.where(x.isfinite(), x, clean, out=x)
            if budget.frames is not None:
                keep = _largest_frames(x - clean, budget.frames)
                low, high = torch.where(keep, low, clean), torch.where(keep, high, clean)
                torch.clamp(x, low, high, out=x)
            if name == "skeleton" and any(self.motion.values()):
                self._into_motion_(x, low, high)
            if budget.norm == "L2":
                self._into_ball_(name, x, final)
            torch.clamp(x, low, high, out=x)
        return adv

    def _into_ball_(self, name: str, x: Tensor, final: bool) -> None:
        eps, clean = self.budgets[name].eps, self.clean[name]
        delta = self._masked(name, x - clean)
        dtype = torch.float64 if final else delta.dtype
        size = torch.linalg.vector_norm(delta.flatten(1), dim=1, dtype=dtype)
        # The margin covers what rounding clean + delta may add to the length.
        limit = eps * (1.0 - 1e-6)
        factor = (limit / size.clamp(min=_TINY)).clamp(max=1.0).to(delta.dtype)
        torch.add(clean, delta.mul_(_per_clip(factor, delta)), out=x)

    def _into_motion_(self, x: Tensor, low: Tensor, high: Tensor) -> None:
        # Before the ball: that shrinks a whole clip by one factor, which keeps the motion bounds.
        torch.clamp(x, low, high, out=x)
        moved = project_motion(
            self.clean["skeleton"],
            x,
            self.batch.present,
            low=low,
            high=high,
            **self.motion,
        )
        x.copy_(moved)

    def _masked(self, name: str, delta: Tensor) -> Tensor:
        mask = self.mask[name]
        return delta if mask is None else delta.mul_(mask)

    def finish(self, adv: Mapping[str, Tensor]) -> Batch:
        """The batch an attack returns."""
        clean = self.batch
        rgb, skeleton = adv.get("rgb", clean.rgb), adv.get("skeleton", clean.skeleton)
        return clean._replace(rgb=rgb.detach(), skeleton=skeleton.detach())

    def select(self, index: Tensor) -> "Region":
        """The region of the clips at `index` (int64 positions)."""
        only = {m: mask[index] for m, mask in self.only.items()}
        return Region(self.batch.select(index), self.budgets, only, **self.motion)


def coarse_uniform(seeds: Tensor, shape: tuple[int, ...] | torch.Size) -> Tensor:
    """float32 [B, *shape] on a grid of 256 values in (-1, 1).

    Four values come from one 32-bit word: the start of PGD then costs a small share of a step.
    """
    count = int(np.prod(shape))
    drawn = words(seeds, -(-count // 4))
    values = drawn.view(torch.uint8)[:, :count].to(torch.float32)
    return values.add_(0.5).mul_(1.0 / 128).sub_(1.0).reshape(-1, *shape)


def rescale(delta: Tensor, length: float | Tensor) -> Tensor:
    """Each clip's `delta` made `length` long in L2, in place; zero stays zero."""
    size = torch.linalg.vector_norm(delta.flatten(1), dim=1).clamp_(min=_TINY)
    return delta.mul_(_per_clip(length / size, delta))


def _per_clip(value: float | Tensor, like: Tensor) -> float | Tensor:
    return value.reshape(-1, *[1] * (like.ndim - 1)) if isinstance(value, Tensor) else value


def _largest(budget: Budget) -> float:
    """The largest size of a value within the budget's bounds."""
    return max(abs(budget.low or 0.0), abs(budget.high or 0.0))


def _round_down(eps: float) -> float:
    """The largest float32 that does not exceed eps."""
    rounded = np.float32(eps)
    return float(rounded if float(rounded) <= eps else np.nextafter(rounded, np.float32(0)))


def _largest_frames(delta: Tensor, frames: int) -> Tensor:
    """bool [B, 1, T, 1, 1]: the `frames` frames of largest change; ties go to the first."""
    size = delta.square().sum(dim=(1, 3, 4))
    order = size.argsort(dim=1, descending=True, stable=True)[:, :frames]
    keep = torch.zeros_like(size, dtype=torch.bool).scatter_(1, order, True)
    return keep[:, None, :, None, None]
