"""The strongest adversarial clip found so far, one per clip of a batch, without extra passes."""

from collections.abc import Mapping

import torch
from torch import Tensor

from components.attacks.losses import fooled


class Best:
    """Keeps per clip the first input seen to fool; until then what may still turn out to fool.

    That is the end of a run that was never passed through the model, of the run with the highest
    value; without any, the input of highest value. Everything stays on the device: no host sync.
    """

    def __init__(self, start: Mapping[str, Tensor], label: Tensor) -> None:
        self.adv = {m: x.clone() for m, x in start.items()}
        self.label = label
        self.done = torch.zeros_like(label, dtype=torch.bool)
        self.value = torch.full(label.shape, -torch.inf, device=label.device)
        self.offered = self.value.clone()

    def see(self, adv: Mapping[str, Tensor], logits: Tensor, value: Tensor) -> None:
        """A forward pass at `adv` gave `logits` and the loss `value` [B]."""
        hit = fooled(logits, self.label)
        # What was seen to fail is never kept in place of an end that nobody has looked at.
        higher = (value > self.value) & self.offered.isinf()
        better = ~self.done & (hit | higher)
        self._take(adv, better)
        self.value = torch.where(better, value.to(self.value.dtype), self.value)
        self.done |= hit

    def offer(self, adv: Mapping[str, Tensor], value: Tensor) -> None:
        """The end of a run, never passed through the model: `value` is that of the step before.

        Every point that was seen is known not to fool, so the end is preferred whatever its value;
        values choose among the ends of several runs.
        """
        better = ~self.done & ((value > self.offered) | self.offered.isinf())
        self._take(adv, better)
        self.offered = torch.where(better, value.to(self.value.dtype), self.offered)

    def _take(self, adv: Mapping[str, Tensor], where: Tensor) -> None:
        for name, x in adv.items():
            chosen = where.reshape(-1, *[1] * (x.ndim - 1))
            torch.where(chosen, x, self.adv[name], out=self.adv[name])

    def select(self, index: Tensor) -> "Best":
        """The record of the clips at `index` (int64 positions) alone."""
        part = Best({m: x[index] for m, x in self.adv.items()}, self.label[index])
        part.done, part.value = self.done[index], self.value[index]
        part.offered = self.offered[index]
        return part

    def merge(self, other: "Best", index: Tensor) -> None:
        """Take over what `other` found for the clips at `index`, where it is stronger."""
        better = ~self.done[index] & (other.done | (other.value > self.value[index]))
        at = index[better]
        for name, x in other.adv.items():
            self.adv[name][at] = x[better]
        self.value[at], self.done[at] = other.value[better], other.done[better]
