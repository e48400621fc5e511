"""Guards the folder the sample is written to: never over files that are not its own."""

import json
from pathlib import Path
from typing import Any

from components.address import masked
from components.errors import UserError
from components.shards.storage import open_store

MARKER = "sample.json"
README = "README.md"
VIDEOS, SKELETONS = "nturgb+d_rgb", "nturgb+d_skeletons"


class ForeignFilesError(UserError):
    """The folder holds files that no run of the generator wrote."""


def read_marker(where: str | Path) -> dict[str, Any] | None:
    """What `sample.json` says about the sample in this folder or URI, or None."""
    path = f"{masked(str(where))}/{MARKER}"
    try:
        marker = json.loads(open_store(where).read(MARKER))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise ForeignFilesError(f"{path} is not readable: {error}; delete it or the folder")
    if not isinstance(marker, dict) or "parameters" not in marker or "files" not in marker:
        raise ForeignFilesError(f"{path} is not the sample's marker; choose another paths.data")
    return marker


def write_marker(folder: Path, parameters: dict[str, Any], files: dict[str, int | None]) -> None:
    """Record the parameters and every file with its size; None = planned, not yet written."""
    body = {
        "what": "synthetic NTU-format sample, written by `python -m pipelines.sample`",
        "complete": None not in files.values(),
        "parameters": parameters,
        "files": files,
    }
    write_atomically(folder / MARKER, (json.dumps(body, indent=1) + "\n").encode())


def write_atomically(path: Path, data: bytes) -> None:
    """All of the file or nothing of it."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(data)
    temporary.replace(path)


def own_files(folder: Path) -> dict[str, int | None]:
    """Files an earlier run of the generator left here; all files there are must be among them.

    Raises ForeignFilesError, before anything is written, when there is anything else.
    """
    if not folder.exists():
        return {}
    if not folder.is_dir():
        raise ForeignFilesError(f"paths.data={folder} is no folder; name one that is")
    marker = read_marker(folder)
    known = {MARKER: None, README: None, **(marker["files"] if marker else {})}
    there = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if not p.is_dir()}
    foreign = [
        name
        for name, path in sorted(there.items())
        if not (marker and _is_own(name.removesuffix(".part"), path, known))
    ]
    if foreign:
        shown = ", ".join(foreign[:3]) + (" ..." if len(foreign) > 3 else "")
        raise ForeignFilesError(
            f"{folder} holds {len(foreign)} files that are not the sample's ({shown}); "
            "name an empty folder with paths.data=..., or move them away"
        )
    return {name: known[name] for name in there if name in known}


def _is_own(name: str, path: Path, known: dict[str, int | None]) -> bool:
    if name not in known:
        return False
    size = known[name]
    return size is None or path.name.endswith(".part") or path.stat().st_size == size
