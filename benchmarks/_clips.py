"""Sealed shards of random clips, for measurements that need the data path but no meaning."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from components.shards.schema import META, clip_schema, rows_to_batch
from components.shards.sealing import seal
from components.shards.storage import hash_file, open_store
from components.shards.writer import Written

CLASSES = 27
VIDEO_FRAMES, SKELETON_FRAMES = 60, 60


def write_random_shards(folder: Path, clips: int, frames: int = 16, size: int = 64) -> str:
    """Sealed shards as `shard.frames` and `shard.size` would make them; the folder.

    Subjects 1 to 8 in turn; with data.custom.subjects=[1,3,5,7] half of the clips train.
    """
    settings = {
        "source": "ntu", "unit": "metres", "codec": "raw", "jpeg_quality": 0,
        "frames": frames, "size": size, "margin": 0.15,
    }  # fmt: skip
    rng = np.random.default_rng(0)
    seal_rows(folder, [_row(rng, i, frames, size) for i in range(clips)], settings)
    return str(folder)


def seal_rows(folder: Path, rows: list[dict[str, Any]], settings: Mapping[str, Any]) -> None:
    """Sealed shards of finished rows in one file, without any NTU file behind them.

    rows, settings: as `components.shards.schema` describes them
    """
    schema = clip_schema(settings)
    path = folder / "shard-000000.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(rows_to_batch(rows, schema))
    record = {
        "file": path.name,
        "rows": len(rows),
        "bytes": path.stat().st_size,
        "sha256": hash_file(path),
        "rejected": [],
        "meta": [{name: row[name] for name in META.names} for row in rows],
    }
    seal(open_store(folder), [Written(record, fresh=True)], settings)


def _row(rng: np.random.Generator, i: int, frames: int, size: int) -> dict[str, Any]:
    action, subject = 1 + i % CLASSES, 1 + (i // CLASSES) % 8
    setup, replication = 1 + i // (CLASSES * 8 * 2), 1 + i // (CLASSES * 8) % 2
    present = np.zeros((SKELETON_FRAMES, 2), np.uint8)
    present[:, 0] = 1
    joints = rng.normal(size=(SKELETON_FRAMES, 2, 25, 3)).astype(np.float32)
    joints *= present[:, :, None, None]
    return {
        "clip_id": f"S{setup:03d}C001P{subject:03d}R{replication:03d}A{action:03d}",
        "setup": setup, "camera": 1, "subject": subject, "replication": replication,
        "action": action, "num_rgb_frames": VIDEO_FRAMES, "num_skeleton_frames": SKELETON_FRAMES,
        "rgb_fps": 30.0, "skeleton_fps": 30.0, "width": 320, "height": 240,
        "box": [0, 0, 240], "persons": 1, "flags": [],
        "rgb_index": np.linspace(0, VIDEO_FRAMES - 1, frames).astype(np.int32),
        "rgb": [rng.bytes(size * size * 3) for _ in range(frames)],
        "skeleton_index": np.arange(SKELETON_FRAMES, dtype=np.int32),
        "skeleton": joints.reshape(SKELETON_FRAMES, -1),
        "present": present,
    }  # fmt: skip
