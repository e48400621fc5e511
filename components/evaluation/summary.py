"""From per-clip records to the figures of `artifacts/evaluation/<model>.json`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.errors import UserError
from components.evaluation.comparable import clips_fingerprint
from components.evaluation.metrics import accuracy, confusion
from components.evaluation.sizes import SIZES
from components.evaluation.suite import Entry

Verdicts = NDArray[np.bool_]


class Records:
    """Quick look-ups in a table of records: clips by position, rows by (cell, attack)."""

    def __init__(self, table: pa.Table) -> None:
        cells, attacks = table["cell"].to_pylist(), table["attack"].to_pylist()
        self.table = table
        self.rows: dict[tuple[str, str], list[int]] = {}
        for row, key in enumerate(zip(cells, attacks, strict=True)):
            self.rows.setdefault(key, []).append(row)
        clean = self.part("clean", "clean")
        self.clip_id: list[str] = clean["clip_id"].to_pylist()
        self.label = clean["label"].to_numpy()
        self.position = {clip: i for i, clip in enumerate(self.clip_id)}
        if len(self.position) < len(self.clip_id):
            raise UserError("two clean records of one clip; the records of two runs were mixed")

    def part(self, cell: str, attack: str) -> pa.Table:
        """The rows of one attack in one cell, in the order of the clips; maybe none."""
        return self.table.take(pa.array(self.rows.get((cell, attack), []), pa.int64()))

    def fooled(self, cell: str, attack: str) -> Verdicts:
        """bool [n], True where the attack ran and the clip was not right afterwards.

        In "both" also where it fooled through one modality alone, which lies inside that budget.
        """
        found = np.zeros(len(self.clip_id), dtype=bool)
        if cell == "both":
            found = self.fooled("rgb", attack) | self.fooled("skeleton", attack)
        part = self.part(cell, attack)
        where = [self.position[clip] for clip in part["clip_id"].to_pylist()]
        found[where] = ~part["correct"].to_numpy(zero_copy_only=False)
        return found


def standing(
    records: Records, entries: Sequence[Entry], cells: Sequence[str]
) -> dict[str, list[Verdicts]]:
    """Per cell bool [n] before the first attack and after each one, in order of the suite."""
    clean = records.part("clean", "clean")["correct"].to_numpy(zero_copy_only=False)
    steps: dict[str, list[Verdicts]] = {}
    for cell in cells:
        now = clean.copy()
        if cell == "both":
            for single in steps.values():
                now &= single[-1]
        steps[cell] = [now]
        for entry in entries:
            now = now & ~records.fooled(cell, entry.name)
            steps[cell].append(now)
    return steps


def summarise(
    table: pa.Table, entries: Sequence[Entry], cells: Sequence[str], classes: Sequence[Any]
) -> dict[str, Any]:
    """All accuracies, tables by class, sizes and modality weights of one model's records.

    classes: the name (or number) of each class, by label. Every accuracy is
    `{"value", "low", "high", "n"}`. In `robust_acc`, `scope` says what an attack's figure means:
    "individual", the clips right on clean input and under this attack alone (for the cell "both"
    also in the single-modality cells); "standing", the
    clips that also stood up to all attacks before it, on which alone it ran.
    """
    records = Records(table)
    steps = standing(records, entries, cells)
    clean = records.part("clean", "clean")
    right = clean["correct"].to_numpy(zero_copy_only=False)
    robust: dict[str, dict[str, Any]] = {}
    for position, entry in enumerate(entries):
        for cell in cells:
            left = right & ~records.fooled(cell, entry.name)
            verdicts = left if entry.individual else steps[cell][position + 1]
            scope = "individual" if entry.individual else "standing"
            robust.setdefault(entry.name, {})[cell] = {**accuracy(verdicts), "scope": scope}
    worst = {cell: steps[cell][-1] for cell in cells}
    return {
        "clips": len(right),
        "clips_fingerprint": clips_fingerprint(records.clip_id),
        "clean_acc": accuracy(right),
        "robust_acc": robust,
        "worst": {cell: accuracy(verdicts) for cell, verdicts in worst.items()},
        "fooling_rate": {c: accuracy(~v[right]) for c, v in worst.items()},
        "broken_by": _broken_by(steps, entries),
        "per_class": _per_class(records.label, right, worst, classes),
        "confusion": confusion(records.label, clean["prediction"].to_numpy(), len(classes)),
        "sizes": _by_attack(records, entries, cells, _sizes),
        "weights": _weights(records, entries, cells, classes),
    }


def _broken_by(
    steps: dict[str, list[Verdicts]], entries: Sequence[Entry]
) -> dict[str, dict[str, int]]:
    return {
        cell: {
            entry.name: int((before & ~after).sum())
            for entry, before, after in zip(entries, rows, rows[1:], strict=False)
        }
        for cell, rows in steps.items()
    }


def _per_class(
    label: NDArray[Any], right: Verdicts, worst: dict[str, Verdicts], classes: Sequence[Any]
) -> list[dict[str, Any]]:
    rows = []
    for k, name in enumerate(classes):
        here = label == k
        attacked = {cell: accuracy(verdicts[here]) for cell, verdicts in worst.items()}
        rows.append({"class": name, "clean_acc": accuracy(right[here]), "worst": attacked})
    return rows


def _by_attack(
    records: Records, entries: Sequence[Entry], cells: Sequence[str], figure: Any
) -> dict[str, dict[str, Any]]:
    """`figure(rows)` by attack and cell, where the attack ran at all."""
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        for cell in cells:
            if (cell, entry.name) in records.rows:
                found.setdefault(entry.name, {})[cell] = figure(records.part(cell, entry.name))
    return found


def _sizes(part: pa.Table) -> dict[str, dict[str, float]]:
    columns = {name: part[name].to_numpy() for name in SIZES}
    return {n: {"mean": float(c.mean()), "max": float(c.max())} for n, c in columns.items()}


def _mean_weights(part: pa.Table) -> dict[str, list[float]]:
    """Mean weight of the video by stage, one figure a group."""
    sums: dict[str, dict[int, list[float]]] = {}
    for row in part["weights"].to_pylist():
        for item in row:
            groups = sums.setdefault(item["place"], {})
            if np.isfinite(item["rgb"]):
                groups.setdefault(item["group"], []).append(item["rgb"])
    return {p: [float(np.mean(groups[g])) for g in sorted(groups)] for p, groups in sums.items()}


def _weights(
    records: Records, entries: Sequence[Entry], cells: Sequence[str], classes: Sequence[Any]
) -> dict[str, Any]:
    """Mean weight of the video (the skeleton has the rest): clean, by attack, and by class under
    all attacks of a cell together."""
    clean = records.part("clean", "clean")
    overall = _mean_weights(clean)
    if not overall:
        return {}
    attacked = _by_attack(records, entries, cells, _mean_weights)
    by_class: dict[str, Any] = {}
    attacked_by_class: dict[str, Any] = {}
    for k, name in enumerate(classes):
        by_class[str(name)] = _mean_weights(clean.filter(pa.array(records.label == k)))
        here = records.table.filter(pc.equal(records.table["label"], k))
        attacked_by_class[str(name)] = {
            cell: _mean_weights(here.filter(pc.equal(here["cell"], cell))) for cell in cells
        }
    return {
        "clean": overall,
        "attacked": attacked,
        "clean_by_class": by_class,
        "attacked_by_class": attacked_by_class,
    }
