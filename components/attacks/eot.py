"""Expectation over transformation (Athalye et al. 2018): attacks on models with random output."""

import hashlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.attacks.apgd import apgd
from components.attacks.gradient import Model, frozen
from components.attacks.threat import ThreatModel
from components.batch import Batch, ModelOutput, logits_of
from components.errors import UserError


class Averaged(nn.Module):
    """The mean output of `samples` calls; logits are averaged as log-probabilities."""

    def __init__(self, model: Model, samples: int) -> None:
        super().__init__()
        if samples < 1:
            raise UserError(f"samples must be at least 1, got {samples}")
        self.model = model
        self.samples = samples

    def forward(self, rgb: Tensor, skeleton: Tensor, present: Tensor) -> ModelOutput | Tensor:
        """As the wrapped model's."""
        outputs = [self.model(rgb, skeleton, present) for _ in range(self.samples)]
        logits = _mean([F.log_softmax(logits_of(o).float(), dim=1) for o in outputs])
        full = [o for o in outputs if isinstance(o, ModelOutput)]
        if not full:
            return logits
        rest = (
            {k: _mean([getattr(o, part)[k] for o in full]) for k in getattr(full[0], part)}
            for part in ("aux", "weights", "features")
        )
        return ModelOutput(logits, *rest)


def eot(
    model: Model,
    batch: Batch,
    threat: ThreatModel,
    *,
    seed: int,
    samples: int = 10,
    attack: Any = apgd,
    **parameters: Any,
) -> Batch:
    """`attack` (any of this package) against the model's mean over `samples` draws.

    The model's own draws come from torch's generators, which are seeded here by (seed, clips) and
    left as they were found.
    """
    digest = hashlib.sha256(f"{seed}/eot/{batch.clip_id}".encode()).digest()
    device = batch.label.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        with frozen(model) as net:
            return attack(Averaged(net, samples), batch, threat, seed=seed, **parameters)


def _mean(tensors: list[Tensor]) -> Tensor:
    return torch.stack(tensors).mean(dim=0)
