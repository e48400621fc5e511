"""The adversarial set as Arrow: worst input found per clip and cell, to keep and to replay.

A file holds perturbed video and joints of real people wherever the data are real, so it is never
written for data under a licence unless the caller says that this is allowed.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from components.attacks import frozen
from components.batch import Batch
from components.errors import UserError
from components.evaluation.cascade import ChunkResult, clips_per_pass_on
from components.evaluation.fixed import FixedShape
from components.evaluation.metrics import accuracy
from components.evaluation.scores import device_of, score

FORMAT = "adversarial-clips/1"
SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("label", pa.int32()),
        ("cell", pa.string()),
        ("margin", pa.float32()),  # of the model they were made for; not positive = fooled
        ("rgb", pa.large_binary()),  # float32, little endian, [3, T, H, W] in [0, 1]
        ("skeleton", pa.large_binary()),  # float32, [3, S, 25, 2], metres
        ("present", pa.large_binary()),  # bool, [S, 2]
    ]
)


def check_licence(synthetic: bool, allowed: bool) -> None:
    """ValueError unless the clips are synthetic or the user has said that an export is allowed."""
    if not (synthetic or allowed):
        raise UserError(
            "adversarial clips hold the data they were made from, and these are not the synthetic "
            "sample; if their licence lets you keep such copies, set "
            "evaluate.allow_licensed_export=true, else evaluate.export=false"
        )


def to_table(result: ChunkResult) -> pa.Table:
    """The worst inputs of one chunk (made with keep=True), a row per clip and cell."""
    clips = result.clips
    shapes = {name: list(getattr(clips, name).shape[1:]) for name in _TENSORS}
    schema = SCHEMA.with_metadata({"format": FORMAT, "shapes": json.dumps(shapes)})
    tables = []
    for cell, worst in result.worst.items():
        columns: Mapping[str, Any] = {
            "clip_id": list(clips.clip_id),
            "label": clips.label.tolist(),
            "cell": [cell] * clips.size,
            "margin": worst.margin.nan_to_num(nan=-torch.inf).tolist(),
            "rgb": _bytes(worst.rgb),
            "skeleton": _bytes(worst.skeleton),
            "present": _bytes(clips.present),
        }
        tables.append(pa.table([columns[field.name] for field in schema], schema=schema))
    return pa.concat_tables(tables)


def export_adversarial(
    results: Iterable[ChunkResult | pa.Table],
    path: str | Path,
    *,
    synthetic: bool,
    allow_licensed_export: bool = False,
) -> Path:
    """Write the adversarial set of an evaluation made with keep=True.

    synthetic: whether all clips come from this project's generator. Raises ValueError when they
    do not and `allow_licensed_export` is not set, before anything is written.
    """
    check_licence(synthetic, allow_licensed_export)
    tables = [r if isinstance(r, pa.Table) else to_table(r) for r in results]
    if not tables:
        raise UserError("nothing to export; evaluate with keep=True")
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    with pa.ipc.new_file(str(temporary), tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)
    temporary.replace(path)
    return path


def read_adversarial(path: str | Path) -> Iterator[tuple[str, Batch]]:
    """(cell, clips) for each cell of each block of an exported file, memory-mapped."""
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} is no Arrow file: {error}") from error
    metadata = reader.schema.metadata or {}
    if metadata.get(b"format") != FORMAT.encode():
        raise UserError(f"{path} holds no adversarial clips of format {FORMAT}")
    shapes = json.loads(metadata[b"shapes"])
    for number in range(reader.num_record_batches):
        block = reader.get_batch(number)
        for cell in block["cell"].unique().to_pylist():
            rows = block.filter(pa.compute.equal(block["cell"], cell))
            tensors = {n: _tensor(rows[n], shapes[n], kind) for n, kind in _TENSORS.items()}
            label = torch.tensor(rows["label"].to_pylist(), dtype=torch.int64)
            yield cell, Batch(label=label, clip_id=tuple(rows["clip_id"].to_pylist()), **tensors)


def replay(model: nn.Module, path: str | Path) -> dict[str, dict[str, Any]]:
    """Accuracy of any model on an exported adversarial set, by cell.

    For the model the set was made for this is its worst-case robust accuracy again; for another
    it is a transfer attack, an upper bound on its robust accuracy.
    """
    device = device_of(model)
    net = FixedShape(model, clips_per_pass_on(device))
    verdicts: dict[str, list[bool]] = {}
    with frozen(net):
        for cell, clips in read_adversarial(path):
            scores = score(net, clips.to(device))
            verdicts.setdefault(cell, []).extend(scores.correct.tolist())
    return {cell: accuracy(rows) for cell, rows in verdicts.items()}


_TENSORS = {"rgb": np.float32, "skeleton": np.float32, "present": np.bool_}


def _bytes(tensor: Tensor) -> list[bytes]:
    array = tensor.detach().cpu().contiguous().numpy()
    return [row.tobytes() for row in array]


def _tensor(column: pa.Array, shape: list[int], kind: Any) -> Tensor:
    rows = [np.frombuffer(value.as_buffer(), dtype=kind).reshape(shape) for value in column]
    return torch.from_numpy(np.stack(rows))
