"""The clips that the checks for masked gradients run on: rightly classified, and always the same.

A clip that is wrong on clean input shows nothing about an attack, so a model that is right on four
clips of ten needs forty before sixteen can be attacked.
"""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from components.attacks import frozen
from components.batch import Batch
from components.evaluation.fixed import FixedShape
from components.evaluation.scores import score

SUBSET = 16  # rightly classified clips; with fewer no check that counts clips may pass


def rank(clip_id: str) -> bytes:
    """An order of clips that mixes classes and subjects, the same everywhere."""
    return hashlib.blake2b(clip_id.encode(), digest_size=8).digest()


class Subset:
    """Of all clips offered the first SUBSET by `rank`, rightly classified ones before others."""

    def __init__(self) -> None:
        self.clips: Batch | None = None
        self.right: Tensor | None = None

    @property
    def full(self) -> bool:
        """Whether there are enough rightly classified clips."""
        return self.right is not None and int(self.right.sum()) >= SUBSET

    def offer(self, batch: Batch, right: Tensor) -> None:
        """Take from `batch` what belongs to the subset. right: bool [B], right on clean input."""
        if self.clips is not None and self.right is not None:
            batch, right = _joined(self.clips, batch), torch.cat([self.right, right])
        wrong = (~right).tolist()
        order = sorted(range(batch.size), key=lambda i: (wrong[i], rank(batch.clip_id[i])))
        index = torch.tensor(order[:SUBSET], device=batch.label.device)
        self.clips, self.right = batch.select(index), right[index]


def draw(model: nn.Module, batches: Iterable[Batch]) -> Batch:
    """The subset of `batches`, which are in order of `rank`; reads no more of them than it needs.

    Raises ValueError when there is no batch.
    """
    subset = Subset()
    with frozen(FixedShape(model, SUBSET)) as net:
        for batch in batches:
            subset.offer(batch, score(net, batch).correct)
            if subset.full:
                break
    if subset.clips is None:
        raise ValueError("no clips to draw from")
    return subset.clips


def _joined(one: Batch, other: Batch) -> Batch:
    return Batch(
        torch.cat([one.rgb, other.rgb]),
        torch.cat([one.skeleton, other.skeleton]),
        torch.cat([one.present, other.present]),
        torch.cat([one.label, other.label]),
        (*one.clip_id, *other.clip_id),
    )
