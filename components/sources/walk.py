"""All files under a data folder, also behind links, in a fixed order."""

import os
from collections.abc import Iterator
from pathlib import Path

from components.address import is_text
from components.errors import UserError


def walk_files(root: Path) -> Iterator[tuple[str, str]]:
    """(path relative to `root` with forward slashes, file name), sorted within each folder.

    A folder reached twice through links is read once. Hidden files and folders are left out.
    What cannot be written as text (a name in another encoding than UTF-8) comes with an empty file
    name, and so does a folder that may not be read: no clip can be named so, and every adapter
    lists it.
    UserError when there is no such folder.
    """
    if not root.is_dir():
        raise UserError(
            f"the data folder {root} does not exist; put the data set there, link it, set "
            "paths.data, or write the bundled sample with `python -m pipelines.sample`"
        )
    seen: set[str] = set()
    stack = [""]
    while stack:
        relative = stack.pop()
        here = os.path.join(root, relative)
        real = os.path.realpath(here)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(here) as entries:
                ordered = sorted(entries, key=lambda e: e.name)
        except OSError:  # a folder that may not be read; the rest goes on
            yield relative, ""
            continue
        folders = []
        for entry in ordered:
            if entry.name.startswith("."):
                continue
            path = f"{relative}/{entry.name}" if relative else entry.name
            if not is_text(entry.name):
                yield path, ""
                continue
            # A link may lead to a folder on another disk; `is_dir` follows it.
            if _is_folder(entry):
                folders.append(path)
            else:
                yield path, entry.name
        stack.extend(reversed(folders))


def better(root: Path, first: str, second: str) -> str:
    """Of two files for one clip the larger, or the first: half a download is the smaller one."""
    return second if _size(root / second) > _size(root / first) else first


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a link that leads nowhere
        return -1


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
