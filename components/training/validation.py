"""Validation after each epoch: what the best checkpoint, the search and the rollback go by."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from components.attacks import ThreatModel
from components.batch import Batch
from components.errors import UserError
from components.evaluation.scores import cells_of
from components.evaluation.streams import NAMES, health, stream_counts
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
    """Accuracy of this worker's `batches`, clean and under attack, summed over all workers.

    A clip counts in "worst" when it stands in every cell. `score` is what checkpoints go by:
    worst-case robust accuracy, and clean accuracy where that ties (`by_clean`, for natural
    training: clean accuracy alone). What each stream does is in `val_rgb_acc_clean`, ... (see
    `evaluation.streams.health`). Raises ValueError when no worker has a clip.
    """
    cells = cells_of(threat)
    with attackable(model):
        counts = stream_counts(model, batches, threat, steps=steps, seed=seed)
    device = next(model.parameters()).device
    total = torch.tensor([counts[name] for name in NAMES], dtype=torch.float64, device=device)
    summed = dict(zip(NAMES, sum_over_workers(total).tolist(), strict=True))
    clips = summed["clips"]
    if not clips:
        raise UserError("no validation clips; name some with data.val_subjects or data.val_setups")
    clean = summed["clean/fused"] / clips
    # A clip stands in "both" only if it stands in the other cells too.
    worst = summed["standing/both" if "both" in cells else f"standing/{cells[-1]}"] / clips
    return {
        "val_clips": int(clips),
        "val_clean_acc": clean,
        **{f"val_robust_acc_{cell}": summed[f"standing/{cell}"] / clips for cell in cells},
        "val_robust_acc_worst": worst,
        "score": clean if by_clean else worst + 1e-4 * clean,
        **{f"val_{name}": value for name, value in health(summed, cells).items()},
    }
