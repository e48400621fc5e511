"""Validation after each epoch: what the best checkpoint, the search and the rollback go by."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from components.attacks import ThreatModel
from components.batch import Batch
from components.errors import UserError
from components.evaluation.loop import cells_of
from components.evaluation.validation import robust_counts
from components.training.averaging import sum_over_workers
from components.training.methods import attackable


def validate(
    model: nn.Module,
    batches: Iterable[Batch],
    threat: ThreatModel,
    *,
    steps: int,
    seed: int,
    by_clean: bool = False,
) -> dict[str, Any]:
    """Clean and PGD accuracy of this worker's `batches`, summed over all workers.

    A clip counts in "worst" when it stands in every cell. `score` is what checkpoints go by:
    worst-case robust accuracy, and clean accuracy where that ties (`by_clean`, for natural
    training: clean accuracy alone). Raises ValueError when no worker has a clip.
    """
    cells = cells_of(threat)
    with attackable(model):
        counts = robust_counts(model, batches, threat, attack="pgd", seed=seed, steps=steps)
    names = sorted(counts)
    device = next(model.parameters()).device
    total = torch.tensor([counts[n] for n in names], dtype=torch.float64, device=device)
    summed = dict(zip(names, sum_over_workers(total).tolist(), strict=True))
    clips = summed["clips"]
    if not clips:
        raise UserError("no validation clips; name some with data.val_subjects or data.val_setups")
    clean = summed["clean"] / clips
    # `robust_counts` lets a clip stand in "both" only if it stands in the other cells too.
    worst = summed["both" if "both" in cells else cells[-1]] / clips
    return {
        "val_clips": int(clips),
        "val_clean_acc": clean,
        **{f"val_robust_acc_{cell}": summed[cell] / clips for cell in cells},
        "val_robust_acc_worst": worst,
        "score": clean if by_clean else worst + 1e-4 * clean,
    }
