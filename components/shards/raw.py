"""Raw files in an object store: listed by the driver, fetched clip by clip by whoever reads them.

Adapters read local paths. So the driver shows them a folder of empty files with the names and
sizes that the store lists, which is all that `find` looks at, and each task a folder with the files
of its clip. Nothing stays on a node.
"""

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from pyarrow import fs

from components.address import masked, parse_address
from components.errors import UserError
from components.shards.storage import Store, open_store
from components.sources.base import Found, Listing, Source, inside
from components.sources.ingest import Look, look

LABELS = (".csv",)  # what an adapter reads to find clips; small


def local_root(where: str | Path) -> Path | None:
    """The data folder, or None when raw files lie in an object store."""
    return parse_address(str(where), "storage").local


@functools.lru_cache(maxsize=4)
def _store(where: str) -> Store:
    return open_store(where)  # asks the store for the bucket's region, so once a process


def list_clips(source: Source, where: str | Path) -> Listing:
    """`source.find` of a folder or URI; UserError when nothing is there."""
    local = local_root(where)
    if local is not None:
        return source.find(local)
    store = _store(str(where))
    with tempfile.TemporaryDirectory(prefix="listing-") as folder:
        root, there = Path(folder), 0
        for name, size in _names(store):
            path = inside(root, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.lower().endswith(LABELS):
                _fetch(store, name, path)
            else:
                path.touch()
                os.truncate(path, size)  # a hole: the size without the bytes
            there += 1
        if not there:
            raise UserError(
                f"paths.data_uri={masked(str(where))} holds no file; name the folder of raw files"
            )
        return source.find(root)


@contextlib.contextmanager
def near(where: str | Path, found: Found) -> Iterator[Path]:
    """A data folder on this machine that has the clip's files, fetched when they are not here.

    OSError when the store does not answer or the disk is full: neither is the clip's fault, so
    neither may become a reason to reject it. A file that is gone is missing in the folder, too.
    """
    local = local_root(where)
    if local is not None:
        yield local
        return
    store = _store(str(where))
    with tempfile.TemporaryDirectory(prefix="clip-") as folder:
        root = Path(folder)
        for name in filter(None, (found.video, found.skeleton)):
            _fetch_all(store, name, root)
        yield root


def look_at_all(
    source: Source, where: str | Path, clips: Sequence[Found], seconds: float = 0.0
) -> list[Look]:
    """`look` for each clip in a folder or URI: the work of one parallel task."""
    looks = []
    for found in clips:
        with near(where, found) as root:
            looks.append(look(source, root, found, seconds))
    return looks


def states_of(source: Source, where: str | Path, found: Found) -> list[list[int]]:
    """Size and time of change (ns) of the clip's files, which stand for their content."""
    local = local_root(where)
    if local is not None:
        return [_state(path) for path in source.files(local, found)]
    store = _store(str(where))
    names = [name for name in (found.video, found.skeleton) if name]
    infos = store.filesystem.get_file_info([f"{store.root.rstrip('/')}/{n}" for n in names])
    return [[i.size, i.mtime_ns] if i.type == fs.FileType.File else [] for i in infos]


def _state(path: Path) -> list[int]:
    try:
        state = path.stat()
    except OSError:
        return []
    return [state.st_size, state.st_mtime_ns]


def _names(store: Store, below: str = "") -> Iterator[tuple[str, int]]:
    """(name relative to the store's root, bytes) of all files below."""
    base = store.root.rstrip("/")
    top = f"{base}/{below}" if below else base
    selector = fs.FileSelector(top, recursive=True, allow_not_found=True)
    for info in store.filesystem.get_file_info(selector):
        if info.type == fs.FileType.File:
            yield info.path.removeprefix(base).lstrip("/"), info.size


def _fetch_all(store: Store, name: str, root: Path) -> None:
    """One file, or all in a folder of that name (iMiGUE keeps a frame's joints in a file each)."""
    with contextlib.suppress(FileNotFoundError):
        _fetch(store, name, inside(root, name))
        return
    for below, _ in _names(store, name):
        _fetch(store, below, inside(root, below))


def _fetch(store: Store, name: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        store.filesystem.open_input_stream(f"{store.root.rstrip('/')}/{name}") as stream,
        target.open("wb") as file,
    ):
        while block := stream.read(1 << 20):
            file.write(block)
