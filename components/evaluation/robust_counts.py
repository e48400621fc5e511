"""The cheap robust accuracy for training and search: one attack, counts that workers add up."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from components.attacks import CELLS, ThreatModel
from components.attacks.checked import looked_at
from components.batch import Batch
from components.errors import UserError
from components.evaluation.cascade import run_cascade
from components.evaluation.evaluate import model_outputs
from components.evaluation.metrics import accuracy_of
from components.evaluation.scores import cells_of, device_of
from components.evaluation.suite import Entry
from components.inputs import check_labels


def robust_counts(
    model: nn.Module,
    batches: Iterable[Batch],
    threat: ThreatModel,
    *,
    attack: str = "margin_pgd",
    cells: Sequence[str] = CELLS,
    seed: int = 0,
    **parameters: Any,
) -> dict[str, int]:
    """Clips (`clips`), those right on clean input (`clean`), and those still right per cell.

    Plain counts, so that the workers of one training run can add theirs up. A clip counts as
    right in "both" only if no single-modality attack of this call broke it either. Further
    keywords (steps=5) go to the attack. Works on the model's device and restores its mode.
    """
    counts = dict.fromkeys(("clips", "clean", *cells_of(threat, cells)), 0)
    entry = Entry(attack, attack, parameters)
    device = device_of(model)
    for batch in batches:
        result = run_cascade(
            model, batch.to(device), [entry], threat, seed=seed, cells=cells, clips_per_pass=0
        )
        counts["clips"] += batch.size
        counts["clean"] += int(result.clean.scores.correct.sum())
        for cell, standing in result.standing.items():
            counts[cell] += int(standing.sum())
    return counts


def robust_accuracy(
    model: nn.Module,
    batches: Batch | Iterable[Batch],
    threat: ThreatModel,
    *,
    attack: str = "margin_pgd",
    cells: Sequence[str] = CELLS,
    seed: int = 0,
    unit: str = "metres",
    **parameters: Any,
) -> dict[str, Any]:
    """Clean accuracy and, per cell, robust accuracy under one attack.

    `{"clips": n, "clean_acc": {...}, "robust_acc": {"rgb": {...}, ...}}`, each accuracy
    `{"value", "low", "high", "n"}` in [0, 1]. For a figure that nobody can break later, run a
    suite (`components.evaluation.evaluate_model`).
    """
    counts = robust_counts(
        model,
        _checked(model, batches, threat, unit),
        threat,
        attack=attack,
        cells=cells,
        seed=seed,
        **parameters,
    )
    if not counts["clips"]:
        raise UserError("no clips to evaluate: `batches` was empty")
    return from_counts(counts)


def _checked(
    model: nn.Module, batches: Batch | Iterable[Batch], threat: ThreatModel, unit: str
) -> Iterator[Batch]:
    device, outputs = device_of(model), 0
    for part in [batches] if isinstance(batches, Batch) else batches:
        batch = looked_at(part, threat, unit).to(device)
        if not outputs:
            outputs = model_outputs(model, batch)[1]
        check_labels(batch.label, outputs)
        yield batch


def from_counts(counts: Mapping[str, int]) -> dict[str, Any]:
    """The dictionary of `robust_accuracy` from the (summed) counts of `robust_counts`."""
    n = counts["clips"]
    robust = {c: accuracy_of(counts[c], n) for c in counts if c not in ("clips", "clean")}
    return {"clips": n, "clean_acc": accuracy_of(counts["clean"], n), "robust_acc": robust}
