"""Small file operations that survive a kill at any moment: locks, atomic JSON."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; other processes wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def try_lock(path: Path) -> IO[str] | None:
    """The open lock file, held until it is closed or this process ends; None if another has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def write_json(path: Path, body: Any) -> None:
    """Write `body` so that a reader sees the old or the new file, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(body, indent=2, default=str) + "\n")
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, or an empty one when there is no such file."""
    return json.loads(path.read_text()) if path.is_file() else {}
