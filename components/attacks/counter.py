"""Cost of an attack: forward and backward passes per clip, counted by a wrapper of the model."""

from collections import Counter as Tally
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from components.batch import ModelOutput


class Counter(nn.Module):
    """Behaves as the wrapped model and counts what attacks spend on each clip.

    forwards, backwards: passes by clip id. A model that averages n samples per call (EoT) counts n.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.forwards: Tally[str] = Tally()
        self.backwards: Tally[str] = Tally()

    def forward(self, rgb: Tensor, skeleton: Tensor, present: Tensor) -> ModelOutput | Tensor:
        """The wrapped model's output."""
        return self.model(rgb, skeleton, present)

    def reset(self) -> None:
        """Forget all counts."""
        self.forwards.clear()
        self.backwards.clear()

    def passes(self, clip_id: str) -> int:
        """Forward plus backward passes of one clip."""
        return self.forwards[clip_id] + self.backwards[clip_id]


def count(model: Any, clip_ids: Sequence[str], *, backward: bool) -> None:
    """Tell every Counter around or inside wrappers of `model` of one pass over these clips."""
    times = 1
    while isinstance(model, nn.Module):
        if isinstance(model, Counter):
            tally = model.backwards if backward else model.forwards
            for clip_id in clip_ids:
                tally[clip_id] += times
        times *= getattr(model, "samples", 1) if hasattr(model, "model") else 1
        model = getattr(model, "model", None)
