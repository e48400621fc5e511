"""A few clips before and after some attacks, kept so that people can look at them.

`pipelines.evaluate` writes one small file a run (`<run>_gallery.arrow`); `components.reporting`
makes the page's gallery of it. What is kept of a licensed clip is what the model said, no picture
and no joint, unless the caller says that pictures are allowed.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from components.attacks import CELLS, ThreatModel, frozen
from components.batch import Batch, ModelOutput, logits_of
from components.errors import UserError
from components.evaluation.cascade import clips_per_pass_on
from components.evaluation.faster import faster, foldable
from components.evaluation.fixed import FixedShape
from components.evaluation.scores import cells_of, perturb
from components.evaluation.sizes import perturbation_sizes
from components.evaluation.sprites import (
    change_sprite,
    thin_joints,
    thin_video,
    video_sprite,
    whole_steps,
)
from components.evaluation.suite import Entry, describe

FORMAT = "gallery/1"
CANDIDATES = 16  # clips of one file: one pass of the model; the page shows some of them
SHOWN = ("pgd20", "margin_pgd")  # entries of a suite that are shown
BEST = 5  # classes kept of each answer
SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("label", pa.int32()),
        ("cell", pa.string()),  # clean, rgb, skeleton, both
        ("attack", pa.string()),  # clean, or the name of the suite's entry
        ("correct", pa.bool_()),
        ("label_probability", pa.float32()),
        ("labels", pa.list_(pa.int32())),  # the likeliest classes, best first
        ("probabilities", pa.list_(pa.float32())),
        ("weights", pa.list_(pa.float32())),  # of video and skeleton; null without
        ("rgb_linf", pa.float32()),  # size of the change
        ("skeleton_linf", pa.float32()),
        # The clean row holds the clip, the others what was changed; null where nothing was.
        ("video", pa.binary()),  # WebP, frames side by side
        ("video_step", pa.float32()),
        ("joints", pa.binary()),  # int16 (clean) or int8 (change) [s, m, 25, 3]
        ("joints_step", pa.float32()),
        ("present", pa.binary()),  # bool [s, m]
    ]
)


class Gallery(NamedTuple):
    """rows: of `SCHEMA`; about: format, whether pictures are in it, attacks, cells, threat, shapes
    (`frames`, `steps`)."""

    rows: pa.Table
    about: dict[str, Any]


class Answer(NamedTuple):
    """What a model says of B clips: probabilities [B, K] and weights [B, 2], if it has any."""

    probabilities: Tensor
    weights: Tensor | None
    correct: Tensor


def gallery_of(
    model: nn.Module,
    batch: Batch,
    attacks: Sequence[Entry],
    threat: ThreatModel,
    *,
    seed: int,
    cells: Sequence[str] = CELLS,
    pictures: bool = True,
) -> Gallery:
    """Each clip as it is and after each attack in each cell the threat model allows.

    batch: clips on the model's device. `label` is what attacks lead away from: the true class, or
        the model's own answer for a clip of which nobody knows it. A clip that is wrong as it is
        meets no attack, as in the evaluation.
    attacks: what an attack finds is what it finds in the evaluation with the same seed.
    pictures: keep video and joints; leave it False where the data's licence forbids copies.
    """
    net = FixedShape(model, clips_per_pass_on(batch.label.device))
    with frozen(net):
        clean = _answer(net, batch)
        tables = [_rows(batch, batch, clean, "clean", "clean", pictures)]
        right = clean.correct.nonzero().flatten()
        part = batch.select(right)
        folds = [model] if attacks and foldable(model, batch) else []
        for cell in cells_of(threat, cells) if len(right) else ():
            for entry in attacks:
                with faster(folds):
                    found = perturb(
                        net,
                        part,
                        threat.cell(cell),
                        entry.attack,
                        seed=seed,
                        parameters=entry.parameters,
                    )
                tables.append(_rows(part, found, _answer(net, found), cell, entry.name, pictures))
    about = {
        "format": FORMAT,
        "pictures": pictures,
        "attacks": describe(attacks),
        "cells": list(cells_of(threat, cells)),
        "threat": threat.as_dict(),
        "frames": thin_video(batch.rgb[0]).shape[1],
        "steps": thin_joints(batch.skeleton[0], batch.present[0])[0].shape[0],
    }
    return Gallery(pa.concat_tables(tables), about)


def shown_of(entries: Sequence[Entry]) -> list[Entry]:
    """Those attacks of a suite that a gallery shows."""
    return [entry for entry in entries if entry.name in SHOWN]


def to_file_table(gallery: Gallery) -> pa.Table:
    """The rows with `about` among the metadata, as they lie on disk."""
    return gallery.rows.replace_schema_metadata({"gallery": json.dumps(gallery.about)})


def read_gallery(path: str | Path) -> Gallery:
    """A gallery from its file; UserError for any other file."""
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} is no Arrow file: {error}; evaluate again") from error
    about = json.loads((table.schema.metadata or {}).get(b"gallery", b"{}"))
    if about.get("format") != FORMAT:
        raise UserError(f"{path} holds no gallery of format {FORMAT}; evaluate again")
    return Gallery(table.replace_schema_metadata(None), about)


@torch.no_grad()
def _answer(net: nn.Module, batch: Batch) -> Answer:
    output = net(batch.rgb, batch.skeleton, batch.present)
    logits = logits_of(output).float()
    places = output.weights.values() if isinstance(output, ModelOutput) else ()
    means = [place.float().reshape(batch.size, -1, 2).mean(1) for place in places]
    finite = torch.isfinite(logits).all(1)
    return Answer(
        logits.softmax(1).nan_to_num(0.0),
        torch.stack(means).mean(0).nan_to_num(0.0) if means else None,
        (logits.argmax(1) == batch.label) & finite,
    )


def _rows(
    clean: Batch, found: Batch, answer: Answer, cell: str, attack: str, pictures: bool
) -> pa.Table:
    n = clean.size
    best = answer.probabilities.topk(min(BEST, answer.probabilities.shape[1]), dim=1)
    true = answer.probabilities.gather(1, clean.label[:, None]).squeeze(1)
    sizes = perturbation_sizes(clean, found)
    columns: dict[str, Any] = {
        "clip_id": list(clean.clip_id),
        "label": clean.label.tolist(),
        "cell": [cell] * n,
        "attack": [attack] * n,
        "correct": answer.correct.tolist(),
        "label_probability": true.tolist(),
        "labels": best.indices.tolist(),
        "probabilities": best.values.tolist(),
        "weights": [None] * n if answer.weights is None else answer.weights.tolist(),
        "rgb_linf": sizes["rgb_linf"].tolist(),
        "skeleton_linf": sizes["skeleton_linf"].tolist(),
    }
    drawn = [_drawn(clean, found, i, cell) if pictures else {} for i in range(n)]
    for name in SCHEMA.names[len(columns) :]:
        columns[name] = [row.get(name) for row in drawn]
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _drawn(clean: Batch, found: Batch, i: int, cell: str) -> dict[str, Any]:
    """The clip itself in the clean row, else what the attack changed of it."""
    joints, present = thin_joints(clean.skeleton[i], clean.present[i])
    if cell == "clean":
        body, step = whole_steps(joints, np.int16)
        return {
            "video": video_sprite(thin_video(clean.rgb[i])),
            "joints": body,
            "joints_step": step,
            "present": present.cpu().numpy().tobytes(),
        }
    row: dict[str, Any] = {}
    if cell != "skeleton":
        change = thin_video(found.rgb[i] - clean.rgb[i])
        row["video"], row["video_step"] = change_sprite(change)
    if cell != "rgb":
        moved, _ = thin_joints(found.skeleton[i] - clean.skeleton[i], clean.present[i])
        row["joints"], row["joints_step"] = whole_steps(moved, np.int8)
    return row
