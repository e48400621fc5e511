"""One Arrow row per clip, cell and attack: what every table of the evaluation is counted from."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from torch import Tensor

from components.evaluation.cascade import ChunkResult
from components.evaluation.scores import Scores
from components.evaluation.sizes import SIZES

WEIGHT = pa.struct([("place", pa.string()), ("group", pa.int16()), ("rgb", pa.float32())])
SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("label", pa.int32()),
        ("cell", pa.string()),  # clean, rgb, skeleton, both, exchanged
        ("attack", pa.string()),  # clean, the name of the suite's entry, or what was exchanged
        ("prediction", pa.int32()),
        ("correct", pa.bool_()),
        ("margin", pa.float32()),  # null when the model's output was not finite
        ("broke", pa.bool_()),  # the first attack of its cell that fooled this clip
        *((name, pa.float32()) for name in SIZES),
        ("forward", pa.float32()),  # passes spent on this clip
        ("backward", pa.float32()),
        ("weights", pa.list_(WEIGHT)),  # weight of the video; the skeleton has the rest
        ("rgb_head", pa.bool_()),  # whether that modality's head alone is right; null without heads
        ("skeleton_head", pa.bool_()),
    ],
    metadata={"schema": "evaluation-records/2"},
)

EXCHANGED = "exchanged"  # cell of the clips whose one modality comes from a clip of another class


def to_records(result: ChunkResult) -> pa.Table:
    """The rows of one chunk: first all clean ones, those with one modality exchanged where that was
    tried, then attack by attack.

    No time of day and no seconds are among them, so that equal runs write equal bytes.
    """
    ids, labels = result.clips.clip_id, result.clips.label.tolist()
    every = list(range(len(ids)))
    rows = [_columns(ids, labels, every, "clean", "clean", result.clean.scores, {})]
    for modality, scores in result.exchanged.items():
        rows.append(_columns(ids, labels, every, EXCHANGED, modality, scores, {}))
    for outcome in result.outcomes:
        run = outcome.run
        extra: dict[str, Sequence[Any]] = {
            "broke": outcome.broke.tolist(),
            "forward": run.forward.tolist(),
            "backward": run.backward.tolist(),
            **{name: run.sizes[name].tolist() for name in SIZES},
        }
        index = outcome.index.tolist()
        name = outcome.entry.name
        rows.append(_columns(ids, labels, index, outcome.cell, name, run.scores, extra))
    return pa.concat_tables(rows)


def _columns(
    ids: Sequence[str],
    labels: Sequence[int],
    index: Sequence[int],
    cell: str,
    attack: str,
    scores: Scores,
    extra: dict[str, Sequence[Any]],
) -> pa.Table:
    n = len(index)
    finite = scores.margin.isfinite().tolist()
    margin = [m if ok else None for m, ok in zip(scores.margin.tolist(), finite, strict=True)]
    columns: dict[str, Sequence[Any]] = {
        "clip_id": [ids[i] for i in index],
        "label": [labels[i] for i in index],
        "cell": [cell] * n,
        "attack": [attack] * n,
        "prediction": scores.prediction.tolist(),
        "correct": scores.correct.tolist(),
        "margin": margin,
        "broke": [False] * n,
        **{name: [0.0] * n for name in SIZES},
        "forward": [1.0] * n,
        "backward": [0.0] * n,
        "weights": _weights(scores.weights, n),
        "rgb_head": _verdicts(scores.heads.get("rgb"), n),
        "skeleton_head": _verdicts(scores.heads.get("skeleton"), n),
        **extra,
    }
    return pa.table([columns[field.name] for field in SCHEMA], schema=SCHEMA)


def _verdicts(right: Tensor | None, n: int) -> list[Any]:
    return [None] * n if right is None else right.tolist()


def _weights(weights: dict[str, Tensor], n: int) -> list[list[dict[str, Any]]]:
    rows: list[list[dict[str, Any]]] = [[] for _ in range(n)]
    for place, tensor in weights.items():
        video = tensor[..., 0].reshape(n, -1).tolist()  # [N, G]; G is 1 without groups
        for row, groups in zip(rows, video, strict=True):
            row += [{"place": place, "group": g, "rgb": w} for g, w in enumerate(groups)]
    return rows
