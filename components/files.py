"""Files that appear whole or not at all, and locks: the one place that writes results.

Every writer goes through a temporary file beside the target and a rename, so that a killed process
leaves the file of before, and a reader never sees half of one.
"""

import csv
import io
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout

from components.errors import UserError

LOCK_SECONDS = 1800.0  # a process that ends, however it ends, holds none


def write_bytes(path: Path, data: bytes) -> None:
    """All of the file or nothing of it; folders above it are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # No process number: on another node that writes to this folder it can be the same.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, body: Any) -> None:
    """Strict JSON: a NaN or an infinity is a fault of whoever made it (ValueError)."""
    write_text(path, json.dumps(body, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; {} when there is no such file. UserError for anything else."""
    if not path.is_file():
        return {}
    try:
        body = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); remove it and run again") from error
    if not isinstance(body, dict):
        raise UserError(f"{path} holds a {type(body).__name__}, expected an object")
    return body


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows by column name, with a header; keys that are no column are left out."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_arrow(path: Path, table: pa.Table) -> None:
    """An Arrow IPC file of one table."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    write_bytes(path, sink.getvalue().to_pybytes())


def waited_lock(path: Path) -> FileLock:
    """A lock that is waited for, as long as the longest upload may take; then filelock.Timeout."""
    return FileLock(path, timeout=LOCK_SECONDS)


def try_lock(path: Path) -> FileLock | None:
    """The lock at `path`, held until released or the process ends; None when another holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock
