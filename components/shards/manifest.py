"""The manifest: one row for each clip that was found, accepted or rejected."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.errors import UserError
from components.ntu.ids import ClipId
from components.sources.base import Found
from components.sources.ingest import Look

SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        *(pa.field(part, pa.int32(), nullable=False) for part in ClipId._fields),
        pa.field("video", pa.string(), nullable=False),
        pa.field("skeleton", pa.string(), nullable=False),
        pa.field("first", pa.int32(), nullable=False),
        pa.field("last", pa.int32(), nullable=False),
        pa.field("accepted", pa.bool_(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("rgb_frames", pa.int32(), nullable=False),
        pa.field("skeleton_frames", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("bodies", pa.int32(), nullable=False),
        pa.field("ghosts", pa.int32(), nullable=False),
        pa.field("persons", pa.int32(), nullable=False),
        pa.field("flags", pa.list_(pa.string()), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
    ]
)
_SAME = (
    *("reason", "detail", "rgb_frames", "skeleton_frames", "width", "height"),
    *("bodies", "ghosts", "persons", "digest"),
)


def manifest_table(looks: Iterable[Look]) -> pa.Table:
    """The manifest of these clips, in their order."""
    columns: dict[str, list[object]] = {name: [] for name in SCHEMA.names}
    for seen in looks:
        found = seen.found
        columns["clip_id"].append(str(found.clip))
        for part, value in zip(ClipId._fields, found.clip, strict=True):
            columns[part].append(value)
        for name in ("video", "skeleton", "first", "last"):
            columns[name].append(getattr(found, name))
        columns["accepted"].append(not seen.reason)
        columns["flags"].append(list(seen.flags))
        for name in _SAME:
            columns[name].append(getattr(seen, name))
    return pa.table([pa.array(columns[f.name], f.type) for f in SCHEMA], schema=SCHEMA)


def write_manifest(table: pa.Table, path: Path, source: str) -> None:
    """Write the manifest; `source` names the adapter that reads its files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    metadata = {b"source": source.encode()}
    pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")
    temporary.replace(path)


def read_manifest(path: Path) -> tuple[pa.Table, str]:
    """The manifest and the name of its source; ValueError when the file is none."""
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is no manifest ({error}); run the index stage again") from error
    if not table.schema.equals(SCHEMA):
        raise UserError(f"{path} has other columns than expected; run the index stage again")
    return table, (table.schema.metadata or {}).get(b"source", b"").decode()


def found_rows(table: pa.Table) -> list[tuple[Found, int, str]]:
    """(clip, expected video frames, digest of its files) for each row."""
    return [
        (
            Found(
                ClipId.parse(row["clip_id"]),
                row["video"],
                row["skeleton"],
                row["first"],
                row["last"],
                tuple(f for f in row["flags"] if f.startswith("duplicate-")),
            ),
            row["rgb_frames"],
            row["digest"],
        )
        for row in table.select(
            ["clip_id", "video", "skeleton", "first", "last", "flags", "rgb_frames", "digest"]
        ).to_pylist()
    ]
