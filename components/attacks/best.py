"""The strongest adversarial clip found so far, one per clip of a batch, without extra passes."""

from collections.abc import Mapping

import torch
from torch import Tensor

from components.attacks.losses import fooled


class Best:
    """Keeps per clip the first input seen to fool; until then the candidate of highest value.

    Everything stays on the device: no host sync.
    """

    def __init__(self, start: Mapping[str, Tensor], label: Tensor) -> None:
        self.adv = {m: x.clone() for m, x in start.items()}
        self.label = label
        self.done = torch.zeros_like(label, dtype=torch.bool)
        self.value = torch.full(label.shape, -torch.inf, device=label.device)

    def see(self, adv: Mapping[str, Tensor], logits: Tensor, value: Tensor) -> None:
        """A forward pass at `adv` gave `logits` and the loss `value` [B]."""
        hit = fooled(logits, self.label)
        better = ~self.done & (hit | (value > self.value))
        self._take(adv, better)
        self.value = torch.where(better, value.to(self.value.dtype), self.value)
        self.done |= hit

    def offer(self, adv: Mapping[str, Tensor], value: Tensor) -> None:
        """The end of a run, never passed through the model: `value` is that of the step before.

        One more ascent step is at least as strong as the point it left, so it is preferred to it.
        """
        better = ~self.done & (value >= self.value)
        self._take(adv, better)
        self.value = torch.where(better, value.to(self.value.dtype), self.value)

    def _take(self, adv: Mapping[str, Tensor], where: Tensor) -> None:
        for name, x in adv.items():
            chosen = where.reshape(-1, *[1] * (x.ndim - 1))
            torch.where(chosen, x, self.adv[name], out=self.adv[name])

    def select(self, index: Tensor) -> "Best":
        """The record of the clips at `index` (int64 positions) alone."""
        part = Best({m: x[index] for m, x in self.adv.items()}, self.label[index])
        part.done, part.value = self.done[index], self.value[index]
        return part

    def merge(self, other: "Best", index: Tensor) -> None:
        """Take over what `other` found for the clips at `index`, where it is stronger."""
        better = ~self.done[index] & (other.done | (other.value > self.value[index]))
        at = index[better]
        for name, x in other.adv.items():
            self.adv[name][at] = x[better]
        self.value[at], self.done[at] = other.value[better], other.done[better]
