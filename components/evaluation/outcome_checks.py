"""The two gradient-masking checks that need no further pass: they read the suite's records."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from components.evaluation.checks import Flag, flag, graded
from components.evaluation.suite import Entry
from components.evaluation.summary import Records, standing

BLACK_BOX = ("square", "transfer", "hard_label")


def check_records(table: pa.Table, entries: Sequence[Entry], cells: Sequence[str]) -> list[Flag]:
    """Iterative attacks must beat single-step ones, white-box ones black-box ones, clip by clip."""
    records = Records(table)
    return [_iterative(records, entries, cells), _white_box(records, entries, cells)]


def _iterative(records: Records, entries: Sequence[Entry], cells: Sequence[str]) -> Flag:
    """Clips that one step breaks and twenty do not, as a share of all clips, in the worst cell."""
    names = {entry.name for entry in entries}
    if not {"fgsm", "pgd20"} <= names:
        return flag("iterative", "pass", "the suite has no pair of FGSM and PGD-20 to compare")
    only_single = {
        cell: float(np.mean(records.fooled(cell, "fgsm") & ~records.fooled(cell, "pgd20")))
        for cell in cells
    }
    status = graded(max(only_single.values()), 0.02, 0.05)
    note = "FGSM breaks clips that PGD-20 does not"
    return flag("iterative", status, "" if status == "pass" else note, **only_single)


def _white_box(records: Records, entries: Sequence[Entry], cells: Sequence[str]) -> Flag:
    """Clips that stand up to every gradient attack and fall to one that uses none."""
    steps = standing(records, entries, cells)
    found: dict[str, float] = {}
    for cell, rows in steps.items():
        broken = [
            np.mean(before & ~after)
            for entry, before, after in zip(entries, rows, rows[1:], strict=False)
            if entry.attack in BLACK_BOX
        ]
        found[cell] = float(np.sum(broken))
    if not any(entry.attack in BLACK_BOX for entry in entries):
        return flag("black_box", "pass", "the suite has no black-box attack to compare")
    status = graded(max(found.values(), default=0.0), 0.02, 0.05)
    note = "attacks without gradients break clips that all gradient attacks left standing"
    return flag("black_box", status, "" if status == "pass" else note, **found)
