"""The fixed shape of a shard: columns, version, and how clips become rows.

A shard is an Arrow IPC file. Raw frames of a clip lie one behind the other in one buffer, so a
reader gets them as [N, H, W, 3] without a copy; skeleton frames likewise as [F, 2, 25, 3].
"""

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from components.errors import UserError
from components.ntu.joints import JOINTS, PEOPLE
from components.sources.ingest import Kept

FORMAT = "amr-clips"
VERSION = 1
_KEY = b"amr-clips"
JPEG_QUALITY = 92  # of frames where shard.codec is jpeg


class ShardError(UserError):
    """A shard or its index is damaged, foreign or of another version; the message names it."""


META_FIELDS: tuple[pa.Field, ...] = (
    pa.field("clip_id", pa.string(), nullable=False),
    pa.field("setup", pa.int32(), nullable=False),
    pa.field("camera", pa.int32(), nullable=False),
    pa.field("subject", pa.int32(), nullable=False),
    pa.field("replication", pa.int32(), nullable=False),
    pa.field("action", pa.int32(), nullable=False),
    pa.field("num_rgb_frames", pa.int32(), nullable=False),
    pa.field("num_skeleton_frames", pa.int32(), nullable=False),
    pa.field("rgb_fps", pa.float32(), nullable=False),
    pa.field("skeleton_fps", pa.float32(), nullable=False),
    pa.field("width", pa.int32(), nullable=False),
    pa.field("height", pa.int32(), nullable=False),
    pa.field("box", pa.list_(pa.int32(), 3), nullable=False),
    pa.field("persons", pa.int32(), nullable=False),
    pa.field("flags", pa.list_(pa.string()), nullable=False),
)
BLOB_FIELDS: tuple[pa.Field, ...] = (
    pa.field("rgb_index", pa.list_(pa.int32()), nullable=False),
    pa.field("rgb", pa.list_(pa.large_binary()), nullable=False),
    pa.field("skeleton_index", pa.list_(pa.int32()), nullable=False),
    pa.field("skeleton", pa.list_(pa.list_(pa.float32(), PEOPLE * JOINTS * 3)), nullable=False),
    pa.field("present", pa.list_(pa.list_(pa.uint8(), PEOPLE)), nullable=False),
)
META = pa.schema(META_FIELDS)


def clip_schema(settings: Mapping[str, Any]) -> pa.Schema:
    """The schema of a shard whose metadata carries format, version and `settings` as JSON.

    `settings` has source, unit, codec, frames, size and what else decides the bytes.
    """
    body = {"format": FORMAT, "version": VERSION, **settings}
    text = json.dumps(body, sort_keys=True).encode()
    return pa.schema((*META_FIELDS, *BLOB_FIELDS), metadata={_KEY: text})


def read_settings(schema: pa.Schema, name: str) -> dict[str, Any]:
    """The settings in a shard's schema; ShardError when it is no shard of this version."""
    text = (schema.metadata or {}).get(_KEY)
    if text is None:
        raise ShardError(f"{name} is an Arrow file but no shard of this project; remove it")
    settings = json.loads(text)
    check_version(settings, name)
    if not schema.equals(clip_schema({})):
        raise ShardError(f"{name} has other columns than version {VERSION} of the shards; rebuild")
    return settings


def check_version(body: Mapping[str, Any], name: str) -> None:
    """ShardError when `body` is not of this format and version."""
    if body.get("format") != FORMAT:
        raise ShardError(f"{name} is not of the format {FORMAT!r} (got {body.get('format')!r})")
    if body.get("version") != VERSION:
        raise ShardError(
            f"{name} has schema version {body.get('version')!r}, this program reads {VERSION}; "
            "build the shards again with `python -m pipelines.shard`"
        )


def clip_row(kept: Kept, codec: str, jpeg_quality: int) -> dict[str, Any]:
    """One row of a shard."""
    clip = kept.found.clip
    steps = len(kept.people.present)
    return {
        "clip_id": str(clip),
        **clip._asdict(),
        "num_rgb_frames": kept.rgb_frames,
        "num_skeleton_frames": steps,
        "rgb_fps": kept.rgb_fps,
        "skeleton_fps": kept.skeleton_fps,
        "width": kept.picture[0],
        "height": kept.picture[1],
        "box": list(kept.box),
        "persons": kept.people.persons,
        "flags": list(kept.flags),
        "rgb_index": kept.rgb_index,
        "rgb": [encode_frame(frame, codec, jpeg_quality) for frame in kept.rgb],
        "skeleton_index": np.arange(steps, dtype=np.int32),
        "skeleton": kept.people.joints.reshape(steps, -1),
        "present": kept.people.present.astype(np.uint8),
    }


def rows_to_batch(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Rows as one record batch; numbers go over as whole buffers, never value by value."""
    columns = []
    for field in schema:
        values = [row[field.name] for row in rows]
        if field.name in ("skeleton", "present"):
            flat = pa.array(np.concatenate(values).reshape(-1), field.type.value_type.value_type)
            inner = pa.FixedSizeListArray.from_arrays(flat, type=field.type.value_type)
            column = pa.ListArray.from_arrays(_offsets(values), inner, type=field.type)
        elif field.name in ("rgb_index", "skeleton_index"):
            flat = pa.array(np.concatenate(values), pa.int32())
            column = pa.ListArray.from_arrays(_offsets(values), flat, type=field.type)
        else:
            column = pa.array(values, field.type)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _offsets(values: list[np.ndarray]) -> pa.Array:
    return pa.array(np.cumsum([0, *map(len, values)]), pa.int32())


def encode_frame(frame: np.ndarray, codec: str, quality: int) -> bytes:
    """One frame uint8 [H, W, 3] as raw bytes or as a JPEG."""
    if codec == "raw":
        return frame.tobytes()
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def decode_jpeg(data: bytes, size: int, name: str) -> np.ndarray:
    """A JPEG of a shard as uint8 [size, size, 3]; ShardError naming the shard when it is none."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            if image.size != (size, size):
                raise ShardError(f"{name}: a frame is {image.size}, the schema says {size}x{size}")
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise ShardError(f"{name}: a frame is no JPEG ({error})") from error


def fingerprint(hashes: list[str]) -> str:
    """One sha256 for a set of shards: of their sha256s in order."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()
