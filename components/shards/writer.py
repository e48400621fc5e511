"""Manifest rows to one sealed shard: the work of one parallel task of the shard stage.

A shard's bytes depend on its clips and settings alone. It is written under a temporary name,
hashed, moved into place, and only then is its record (`shard-000000.json`) written; a run that
finds a record whose inputs and bytes still agree does not write that shard again.
"""

import contextlib
import hashlib
import json
import tempfile
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import PIL
import pyarrow as pa

from components.ntu.skeleton import Rejected
from components.shards.raw import near, states_of
from components.shards.schema import META, clip_row, clip_schema, rows_to_batch
from components.shards.storage import Store, hash_file, open_store, publish
from components.sources import get_source
from components.sources.base import Found
from components.sources.ingest import Kept, keep
from components.sources.limit import SLOW

BATCH_BYTES = 16 << 20  # clips are gathered into record batches of about this size
RECIPE = 1  # raise it when the same inputs give other bytes
TRANSIENT = {SLOW, "kills-reader"}  # perhaps the machine's fault: the next run tries again


@dataclass(frozen=True)
class Plan:
    """One shard to write: plain values, so that it travels to any worker.

    `clips` has (clip, expected video frames or 0, digest of its files or ""); `settings` goes
    into the schema: source, unit, codec, jpeg_quality, frames, size, margin, and decode unless it
    is exact. `deadly` names clips that ended the process which read them; they are left out and
    recorded. A clip that takes longer than `seconds` (0 = no limit) is rejected.
    """

    file: str
    clips: tuple[tuple[Found, int, str], ...]
    root: str
    where: str
    settings: Mapping[str, Any]
    threads: int = 1
    deadly: frozenset[str] = frozenset()
    seconds: float = 0.0


@dataclass(frozen=True)
class Written:
    """What is known of a finished shard. `fresh` is False when an earlier run had written it."""

    record: dict[str, Any]
    fresh: bool


def plan_shards(
    clips: Iterable[tuple[Found, int, str]],
    *,
    clips_per_shard: int,
    root: str,
    where: str,
    settings: Mapping[str, Any],
    threads: int = 1,
    seconds: float = 0.0,
) -> list[Plan]:
    """Cut the clips, in their order, into shards."""
    ordered = list(clips)
    return [
        Plan(
            shard_name(number),
            tuple(ordered[start : start + clips_per_shard]),
            root,
            where,
            dict(settings),
            threads,
            seconds=seconds,
        )
        for number, start in enumerate(range(0, len(ordered), clips_per_shard))
    ]


def shard_name(number: int) -> str:
    """shard-000000.arrow and so on."""
    return f"shard-{number:06d}.arrow"


def record_name(file: str) -> str:
    """The record that stands beside a shard."""
    return file.removesuffix(".arrow") + ".json"


def write_shard(plan: Plan) -> Written:
    """Write one shard, or keep the one that an earlier run finished.

    Clips that prove unreadable are left out and listed in the record with their reason.
    """
    store = open_store(plan.where, create=True)
    inputs = _inputs(plan)
    earlier = _finished(store, plan.file, inputs)
    if earlier is not None:
        return Written(earlier, fresh=False)
    folder = store.local or Path(tempfile.gettempdir())
    # No process number: on another node, where the task may run again, it can be the same.
    temporary = folder / f".{plan.file}.{uuid.uuid4().hex}.tmp"
    try:
        meta, rejected = _write(plan, temporary)
        record = {
            "file": plan.file,
            "rows": len(meta),
            "bytes": temporary.stat().st_size,
            "sha256": hash_file(temporary),
            "inputs": inputs,
            "rejected": rejected,
            "meta": meta,
        }
        if store.local is not None:
            publish(temporary, store.local / plan.file)
        else:
            store.upload(temporary, plan.file)
    finally:
        temporary.unlink(missing_ok=True)
    store.write(record_name(plan.file), _json(record))
    return Written(record, fresh=True)


def _write(plan: Plan, path: Path) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    settings = plan.settings
    schema = clip_schema(settings)
    meta: list[dict[str, Any]] = []
    rejected: list[dict[str, str]] = []
    rows: list[dict[str, Any]] = []
    held = 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for found, expected, _ in plan.clips:
            try:
                kept = _keep(plan, found, expected)
            except Rejected as error:
                told = {"clip_id": str(found.clip), "reason": error.reason, "detail": error.detail}
                rejected.append(told)
                continue
            row = clip_row(kept, settings["codec"], settings["jpeg_quality"])
            rows.append(row)
            meta.append({name: row[name] for name in META.names})
            held += sum(map(len, row["rgb"])) + row["skeleton"].nbytes
            if held >= BATCH_BYTES:
                writer.write_batch(rows_to_batch(rows, schema))
                rows, held = [], 0
        if rows:
            writer.write_batch(rows_to_batch(rows, schema))
    return meta, rejected


def _keep(plan: Plan, found: Found, expected: int) -> Kept:
    if str(found.clip) in plan.deadly:
        raise Rejected("kills-reader", "the process that read it died")
    with near(plan.root, found) as root:
        return keep(
            get_source(plan.settings["source"]),
            root,
            found,
            frames=plan.settings["frames"],
            size=plan.settings["size"],
            margin=plan.settings["margin"],
            expected=expected,
            threads=plan.threads,
            seconds=plan.seconds,
            decode=plan.settings.get("decode", "exact"),
        )


def read_alone(plan: Plan) -> frozenset[str]:
    """Read a plan's clips and keep nothing: whoever returns has proved that none is deadly."""
    for found, expected, _ in plan.clips:
        with contextlib.suppress(Rejected):  # a clip that is rejected kills nobody
            _keep(plan, found, expected)
    return frozenset()


def _inputs(plan: Plan) -> str:
    """A digest of all that decides a shard's bytes.

    Without a content digest (index.check=names) a file's size and time of change stand for it.
    """
    source = get_source(plan.settings["source"])
    clips = []
    for found, expected, digest in plan.clips:
        state: object = digest or states_of(source, plan.root, found)
        clips.append([str(found.clip), found.video, found.skeleton, found.first, found.last, state])
        if source.same_clock is False:
            clips[-1].append(expected)
    versions = [RECIPE, av.__version__, PIL.__version__, pa.__version__]
    body = _json({"settings": dict(plan.settings), "versions": versions, "clips": clips})
    return hashlib.sha256(body).hexdigest()


def _finished(store: Store, file: str, inputs: str) -> dict[str, Any] | None:
    """The record of a shard that needs no work: same inputs, and its bytes are as recorded."""
    try:
        record = json.loads(store.read(record_name(file)))
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or record.get("inputs") != inputs:
        return None
    if any(clip["reason"] in TRANSIENT for clip in record.get("rejected", ())):
        return None
    if store.size(file) != record.get("bytes") or store.sha256(file) != record.get("sha256"):
        return None
    return record


def _json(body: Mapping[str, Any]) -> bytes:
    return (json.dumps(body, sort_keys=True, indent=1) + "\n").encode()
