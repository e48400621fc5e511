"""The two gradient-masking checks that need no further pass: they read the suite's records."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from components.evaluation.checks import Flag, counted, flag
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
        cell: int(np.sum(records.fooled(cell, "fgsm") & ~records.fooled(cell, "pgd20")))
        for cell in cells
    }
    return _counted("iterative", records, only_single, "FGSM breaks clips that PGD-20 does not")


def _white_box(records: Records, entries: Sequence[Entry], cells: Sequence[str]) -> Flag:
    """Clips that stand up to every gradient attack and fall to one that uses none."""
    steps = standing(records, entries, cells)
    found: dict[str, int] = {}
    for cell, rows in steps.items():
        broken = [
            int(np.sum(before & ~after))
            for entry, before, after in zip(entries, rows, rows[1:], strict=False)
            if entry.attack in BLACK_BOX
        ]
        found[cell] = sum(broken)
    if not any(entry.attack in BLACK_BOX for entry in entries):
        return flag("black_box", "pass", "the suite has no black-box attack to compare")
    note = "attacks without gradients break clips that all gradient attacks left standing"
    return _counted("black_box", records, found, note)


def _counted(check: str, records: Records, counts: dict[str, int], note: str) -> Flag:
    clean = records.part("clean", "clean")["correct"].to_numpy(zero_copy_only=False)
    right = int(clean.sum())
    return counted(check, counts, len(clean), note, warn=0.015, fail=0.03, right=right)
