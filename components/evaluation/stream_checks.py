"""Flags on the streams of a model: one that is dead, and weights between them that say nothing.

Both read the suite's records (docs/flags.md), so they look at every test clip.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from components.attacks import MODALITIES
from components.evaluation.checks import Flag, flag
from components.evaluation.metrics import Z95, accuracy, paired_difference
from components.evaluation.records import EXCHANGED
from components.evaluation.summary import Records

FEWEST = 16  # clips below which neither can be judged
SPREAD = 0.02  # of weights between 0 and 1: less is a constant for all practical purposes


def check_streams(table: pa.Table) -> list[Flag]:
    """The flags that apply to this model; none on the weights where it has none."""
    records = Records(table)
    if len(records.clip_id) < FEWEST:
        return []
    return [_collapsed(records), *_inert(records)]


def streams_of(records: Records) -> dict[str, Any]:
    """Accuracy of each head alone, clean and under attack, and what exchanging a stream costs.

    {} for records that have neither.
    """
    streams: dict[str, Any] = {}
    heads = {
        (cell, attack): found
        for cell, attack in records.rows
        if cell != EXCHANGED and (found := _heads(records.part(cell, attack)))
    }
    if heads:
        streams["heads"] = {"clean": heads.pop(("clean", "clean"))}
        for (cell, attack), found in heads.items():
            streams["heads"].setdefault(attack, {})[cell] = found
    reliance = {m: found for m in MODALITIES if (found := _reliance(records, m))}
    return streams | ({"reliance": reliance} if reliance else {})


def _heads(part: pa.Table) -> dict[str, Any]:
    columns = {m: part[f"{m}_head"] for m in MODALITIES}
    return {
        m: accuracy(column.to_numpy(zero_copy_only=False).astype(bool))
        for m, column in columns.items()
        if not column.null_count
    }


def _reliance(records: Records, modality: str) -> dict[str, Any]:
    """Accuracy that goes when this stream sees a clip of another class, paired by clip."""
    part = records.part(EXCHANGED, modality)
    if not part.num_rows:
        return {}
    clean = records.part("clean", "clean")["correct"].to_numpy(zero_copy_only=False)
    return paired_difference(clean, part["correct"].to_numpy(zero_copy_only=False))


def _collapsed(records: Records) -> Flag:
    """A head no better than always naming the most frequent class; without heads, a stream whose
    exchange costs nothing (a warning: the model may have one input by design)."""
    chance = float(np.bincount(records.label).max() / len(records.label))
    streams = streams_of(records)
    figures: dict[str, float] = {"chance": chance}
    dead, status = [], "fail"
    for m, found in streams.get("heads", {}).get("clean", {}).items():
        figures |= {f"{m}_acc": found["value"], f"{m}_low": found["low"]}
        dead += [m] if found["low"] <= chance else []
    if "heads" not in streams:
        status = "warn"
        for m, found in streams.get("reliance", {}).items():
            figures |= {f"{m}_reliance": found["value"], f"{m}_low": found["low"]}
            dead += [m] if found["low"] <= 0 else []
    note = (
        f"the {' and the '.join(dead)} stream does no better than chance: it never learned, or its "
        "modality holds nothing to learn"
    )
    return flag("stream_collapsed", status if dead else "pass", note if dead else "", **figures)


def _inert(records: Records) -> list[Flag]:
    """Weights that are the same for all clips and under every attack."""
    by_attack: dict[tuple[str, str], dict[str, float]] = {}
    for key in records.rows:
        part = records.part(*key)
        weight = {
            clip: float(np.mean([one["rgb"] for one in row]))
            for clip, row in zip(
                part["clip_id"].to_pylist(), part["weights"].to_pylist(), strict=True
            )
            if row and key[0] != EXCHANGED
        }
        if weight:
            by_attack[key] = weight
    if not by_attack:
        return []
    every = np.array([w for weight in by_attack.values() for w in weight.values()])
    spread = float(np.nanstd(every))
    figures = {"mean": float(np.nanmean(every)), "spread": spread}
    contrast = _contrast(by_attack)
    if contrast is not None:
        figures |= {"contrast": contrast[0], "contrast_error": contrast[1]}
    inert = spread < SPREAD
    note = "the weights hardly differ between clips and attacks: they are a constant mixture"
    return [flag("attention_inert", "warn" if inert else "pass", note if inert else "", **figures)]


def _contrast(by_attack: dict[tuple[str, str], dict[str, float]]) -> tuple[float, float] | None:
    """Mean over clips of the video's weight under attack on the skeleton less that under the same
    attack on the video, and the half width of its 95 % interval; None where no attack has both."""
    for cell, attack in by_attack:
        if cell != "rgb" or ("skeleton", attack) not in by_attack:
            continue
        video, skeleton = by_attack["rgb", attack], by_attack["skeleton", attack]
        both = [skeleton[clip] - video[clip] for clip in video if clip in skeleton]
        if both:
            return float(np.mean(both)), float(Z95 * np.std(both) / len(both) ** 0.5)
    return None
