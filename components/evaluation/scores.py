"""What every evaluation is made of: a model's verdicts on a batch, and a batch under attack."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from components.attacks import ATTACKS, CELLS, Attack, ThreatModel, transfer, universal
from components.attacks.checked import unchecked
from components.batch import Batch, ModelOutput, logits_of
from components.errors import UserError


class Scores(NamedTuple):
    """What a model says about a batch.

    prediction: int64 [B]; margin: float [B], true logit minus best other one, > 0 when right
    correct: bool [B], False wherever a logit is not finite
    weights: modality weights by place, as in `ModelOutput`
    heads: bool [B] by modality, whether that modality's head alone is right; {} without heads
    """

    prediction: Tensor
    margin: Tensor
    correct: Tensor
    weights: dict[str, Tensor]
    heads: dict[str, Tensor]


@torch.no_grad()
def score(model: nn.Module, batch: Batch) -> Scores:
    """Verdicts on `batch` as it is; within `components.attacks.frozen`, so in evaluation mode."""
    output = model(batch.rgb, batch.skeleton, batch.present)
    logits = logits_of(output).float()
    true = logits.gather(1, batch.label[:, None]).squeeze(1)
    others = logits.scatter(1, batch.label[:, None], -torch.inf)
    prediction = logits.argmax(1)
    correct = (prediction == batch.label) & torch.isfinite(logits).all(1)
    weights: dict[str, Tensor] = {}
    heads: dict[str, Tensor] = {}
    if isinstance(output, ModelOutput):
        weights = dict(output.weights)
        heads = {name: one.argmax(1) == batch.label for name, one in output.aux.items()}
    return Scores(prediction, true - others.amax(1), correct, weights, heads)


def cells_of(threat: ThreatModel, cells: Sequence[str] = CELLS) -> tuple[str, ...]:
    """Those of `cells` that the threat model allows: a modality without a budget has no cell."""
    unknown = set(cells) - set(CELLS)
    if unknown:
        raise UserError(f"no cell {sorted(unknown)[0]!r}; there are: {', '.join(CELLS)}")
    allowed = set(threat.budgets) | ({"both"} if len(threat.budgets) == 2 else set())
    return tuple(cell for cell in CELLS if cell in allowed & set(cells))


def perturb(
    model: nn.Module,
    batch: Batch,
    threat: ThreatModel,
    attack: str,
    *,
    seed: int,
    parameters: Mapping[str, Any] | None = None,
) -> Batch:
    """What `attack` makes of `batch`, put back inside the budget once more.

    An attack's own word that it kept to the threat model is not taken.
    """
    attacks: dict[str, Attack] = {**ATTACKS, "transfer": transfer, "universal": universal}
    if attack not in attacks:
        raise UserError(f"no attack {attack!r}; there are: {', '.join(sorted(attacks))}")
    run = unchecked(attacks[attack])  # whoever evaluates has looked at the clips once
    found = run(model, batch, threat, seed=seed, **(parameters or {}))
    rgb, skeleton = threat.project(batch, found.rgb, found.skeleton)
    projected = batch._replace(rgb=rgb, skeleton=skeleton)
    threat.check(batch, projected)
    return projected


def device_of(model: nn.Module) -> torch.device:
    """Where the model's weights lie; the CPU for a model without any."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")
