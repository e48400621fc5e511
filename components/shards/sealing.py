"""The index of a folder of shards: `shards.json` seals it, `clips.arrow` lists its rows."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from components.shards.schema import (
    FORMAT,
    META,
    VERSION,
    ShardError,
    check_version,
    fingerprint,
)
from components.shards.storage import Store
from components.shards.writer import Written, record_name

INDEX = "shards.json"
CLIPS = "clips.arrow"


def seal(store: Store, written: Sequence[Written], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write the index of finished shards and remove what an earlier run left over."""
    records = [w.record for w in written]
    rows = [row for record in records for row in record["meta"]]
    table = pa.Table.from_pylist(rows, schema=META)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, META) as writer:
        writer.write_table(table)
    clips = sink.getvalue().to_pybytes()
    body = {
        "format": FORMAT,
        "version": VERSION,
        **settings,
        "clips": len(rows),
        "rejected": [r for record in records for r in record["rejected"]],
        "shards": [{k: r[k] for k in ("file", "rows", "bytes", "sha256")} for r in records],
        "fingerprint": fingerprint([r["sha256"] for r in records]),
    }
    store.write(CLIPS, clips)
    store.write(INDEX, (json.dumps(body, indent=1) + "\n").encode())
    _remove_leftovers(store, {r["file"] for r in records})
    return body


def unseal(store: Store) -> None:
    """Remove the index before shards change: a half-written folder must not look finished."""
    store.remove(INDEX)
    for name in store.names():
        if name.endswith(".tmp"):
            store.remove(name)


def read_index(store: Store) -> tuple[dict[str, Any], pa.Table]:
    """The index and the table of rows; ShardError when either is missing or damaged."""
    try:
        body = json.loads(store.read(INDEX))
        with pa.ipc.open_file(pa.py_buffer(store.read(CLIPS))) as reader:
            table = reader.read_all()
    except FileNotFoundError as error:
        raise ShardError(
            f"{store.uri} has no finished shards ({error}); run `python -m pipelines.shard`"
        ) from error
    except (ValueError, pa.ArrowInvalid) as error:
        raise ShardError(f"{store.uri}/{INDEX} or {CLIPS} is damaged: {error}") from error
    if not isinstance(body, dict):
        raise ShardError(f"{store.uri}/{INDEX} is no index of shards")
    check_version(body, f"{store.uri}/{INDEX}")
    if not table.schema.equals(META):
        raise ShardError(f"{store.uri}/{CLIPS} has other columns than version {VERSION}")
    counted = sum(shard["rows"] for shard in body["shards"])
    if not counted == body["clips"] == table.num_rows:
        raise ShardError(
            f"{store.uri}: {INDEX} counts {counted} rows in shards, {CLIPS} has {table.num_rows}"
        )
    return body, table


def _remove_leftovers(store: Store, files: set[str]) -> None:
    keep = files | {record_name(file) for file in files}
    for name in store.names():
        other = name.startswith("shard-") and name.endswith((".arrow", ".json"))
        # Half a shard, of a process or node that was lost while another wrote the whole: DVC
        # would take the folder for changed, and run everything behind it again.
        if name.endswith(".tmp") or (other and name not in keep):
            store.remove(name)
