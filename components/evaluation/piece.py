"""One piece of a model's evaluation as a task for any worker: from shards to a file of results.

What a piece finds depends on its specification alone, never on the worker, so any number of
workers write the same bytes; and a piece whose file is there already, from before a kill, is done.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import torch
from torch import nn

from components.attacks import ThreatModel
from components.batch import Batch
from components.checkpoint import load_model
from components.config import to_dict
from components.config.threat import ThreatSection
from components.datasets import ClipDataset
from components.evaluation.adversarial_set import to_table
from components.evaluation.cascade import run_cascade
from components.evaluation.checks import check_model
from components.evaluation.curves import standing_grid
from components.evaluation.evaluate import chunk_of, model_outputs
from components.evaluation.gallery import gallery_of, shown_of
from components.evaluation.subset import SUBSET, draw
from components.evaluation.suite import describe, entries_of
from components.fingerprint import code_fingerprint
from components.shards import ShardSet

ASIDE = b"aside"  # metadata key of what a piece has to say besides its table


@dataclass(frozen=True)
class Piece:
    """What one task does: run the suite on some clips, or the checks, the curves, the gallery.

    rows: rows of the shards, those of the checks in order of `rank`
    key: hash of all that the result depends on; see `key_of`
    pictures: whether the gallery may keep video and joints
    """

    kind: Literal["suite", "checks", "curves", "gallery"]
    checkpoint: str
    twin: str
    shards: str
    cache_gb: float
    rows: tuple[int, ...]
    classes: tuple[int, ...]
    threat: ThreatModel
    suite: str
    seed: int
    factors: tuple[float, ...]
    export: bool
    cuda: bool
    folder: str
    key: str = ""
    pictures: bool = False

    @property
    def path(self) -> Path:
        """Where the result goes."""
        return Path(self.folder) / f"{self.kind}-{self.key}.arrow"


def threat_of(section: ThreatSection) -> ThreatModel:
    """The `threat` section of params.yaml as the threat model of the evaluation."""
    return ThreatModel.from_settings(to_dict(section))


def key_of(piece: Piece, about: dict[str, Any]) -> str:
    """Hash of a piece, of `about` (checkpoint and shard fingerprints, suite hash) and the code."""
    fields = asdict(piece)
    for name in ("checkpoint", "twin", "shards", "cache_gb", "folder", "key"):
        del fields[name]  # where things lie is no part of what comes out
    body = [fields, about, torch.__version__, code_fingerprint()]
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def run_piece(piece: Piece) -> str:
    """Do the piece unless its file is there; the file's path.

    The file appears under its name only when it is complete.
    """
    if not piece.path.exists():
        torch.set_num_threads(1)  # one thread count for all workers: sums round the same way
        torch.backends.cudnn.deterministic = True
        device = "cuda" if piece.cuda else "cpu"
        model, about = load_model(piece.checkpoint)
        model.to(device)
        data = _data(piece, about["model"])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(piece.seed)  # for models that draw numbers in evaluation mode
            tables = _DO[piece.kind](piece, model, data, device)
        for path, table in tables.items():
            write_atomically(path, table)
    return str(piece.path)


def _data(piece: Piece, model: Mapping[str, Any]) -> ClipDataset:
    shards = ShardSet.open(piece.shards, cache_gb=piece.cache_gb, verify=False)
    return ClipDataset.for_model(shards, piece.rows, piece.classes, model)


def _all(data: ClipDataset, device: str) -> Batch:
    return data.batch(range(len(data)), device=device)


def _suite(piece: Piece, model: nn.Module, data: ClipDataset, device: str) -> dict[Path, pa.Table]:
    clips = _all(data, device)
    has, _ = model_outputs(model, clips)
    twin = None
    if piece.twin:
        twin = load_model(piece.twin)[0].to(clips.label.device)
        has |= {"twin"}
    entries = entries_of(piece.suite, has)
    result = run_cascade(
        model,
        clips,
        entries,
        piece.threat,
        seed=piece.seed,
        keep=piece.export,
        twin=twin,
        exchange=True,
    )
    chunk = chunk_of(result)
    # The export first: once the records are there, the piece counts as done.
    tables = {export_path(piece.path): to_table(result)} if piece.export else {}
    extra = {"costs": chunk.costs, "entries": describe(entries)}
    return {**tables, piece.path: _with_json(chunk.records, extra)}


def _checks(piece: Piece, model: nn.Module, data: ClipDataset, device: str) -> dict[Path, pa.Table]:
    parts = (range(i, min(i + SUBSET, len(data))) for i in range(0, len(data), SUBSET))
    clips = draw(model, (data.batch(part, device=device) for part in parts))
    flags = check_model(model, clips, piece.threat, seed=piece.seed)
    return {piece.path: _with_json(pa.table({}), flags)}


def _curves(piece: Piece, model: nn.Module, data: ClipDataset, device: str) -> dict[Path, pa.Table]:
    clips = _all(data, device)
    grid = standing_grid(model, clips, piece.threat, piece.factors, seed=piece.seed)
    return {piece.path: _with_json(pa.table({}), grid)}


def _gallery(
    piece: Piece, model: nn.Module, data: ClipDataset, device: str
) -> dict[Path, pa.Table]:
    clips = _all(data, device)
    attacks = shown_of(entries_of(piece.suite))
    found = gallery_of(
        model, clips, attacks, piece.threat, seed=piece.seed, pictures=piece.pictures
    )
    return {piece.path: _with_json(found.rows, found.about)}


_DO = {"suite": _suite, "checks": _checks, "curves": _curves, "gallery": _gallery}


def export_path(path: Path) -> Path:
    """Where the adversarial clips of a piece go."""
    return path.with_suffix(".adversarial.arrow")


def _with_json(table: pa.Table, value: Any) -> pa.Table:
    return table.replace_schema_metadata({ASIDE: json.dumps(value).encode()})


def read_piece(path: str | Path) -> tuple[pa.Table, Any]:
    """The table of a finished piece, and the value kept beside it."""
    table = read_table(path)
    return table.replace_schema_metadata(None), json.loads(table.schema.metadata[ASIDE])


def read_table(path: str | Path) -> pa.Table:
    """A whole Arrow file, memory-mapped."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def write_atomically(path: Path, table: pa.Table) -> None:
    """All of the file or nothing of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with pa.ipc.new_file(str(temporary), table.schema) as writer:
        writer.write_table(table)
    temporary.replace(path)
