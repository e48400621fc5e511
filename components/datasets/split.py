"""Which rows of the shards train, validate and test: the protocol applied to what is there."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from components.config.data import DataSection
from components.ntu.protocol import Parts, assign
from components.shards import ShardSet
from components.sources import SOURCES


@dataclass(frozen=True)
class Split:
    """Rows of the shards, int64, rising; `classes` are the action numbers of all clips in use.

    `classes` is the same for all three splits, so a label means the same in each.
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    classes: list[int]
    notes: tuple[str, ...] = ()


def select_split(shards: ShardSet, data: DataSection) -> Split:
    """Apply `data.protocol`; ValueError when a split would be empty."""
    columns = {
        name: shards.meta.column(name).to_numpy().astype(np.int64)
        for name in ("setup", "camera", "subject", "action")
    }
    parts = Parts(**columns)
    chosen = assign(parts, data)
    return Split(
        train=np.flatnonzero(chosen.train),
        val=np.flatnonzero(chosen.val),
        test=np.flatnonzero(chosen.test),
        classes=np.unique(parts.action[~chosen.outside]).tolist(),
        notes=chosen.notes,
    )


def describe(data: DataSection, shards: ShardSet, split: Split) -> dict[str, Any]:
    """What was trained and tested on, as plain values for logs, lineage and reports."""
    note = SOURCES[shards.source].note if shards.source in SOURCES else ""
    return {
        "source": shards.source,
        "unit": shards.unit,
        "protocol": data.protocol,
        "fingerprint": shards.fingerprint,
        "clips": len(shards),
        "train": len(split.train),
        "val": len(split.val),
        "test": len(split.test),
        "classes": len(split.classes),
        "notes": [*split.notes, *([note] if note else [])],
    }
