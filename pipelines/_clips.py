"""From what a user names, a clip or its files, to the clip as the data set's adapter finds it."""

import os
from pathlib import Path

from components.address import readable
from components.errors import UserError
from components.sources.base import Found, Source

EXAMPLES = 3  # names shown when none is near
LIKE = 8  # letters that a name and a slip of it share: setup and camera


def find_clip(named: str, source: Source, data: Path) -> tuple[Path, Found]:
    """The data folder and the clip that a name, a video or a skeleton stands for.

    A name is looked for in `data`, a path from the working folder (`of_file`).
    UserError for what is neither, with the nearest name.
    """
    path = Path(named).expanduser()
    if path.is_dir():
        raise UserError(f"{readable(named)} is a folder; name one clip, or one of its two files")
    if path.is_file():
        return of_file(path, source, data)
    if path.name != named:
        raise UserError(f"{readable(named)}: no such file")
    clips = {str(found.clip): found for found in source.find(data).clips}
    for found in clips.values():
        if named.upper() == str(found.clip) or named in _file_names(found):
            return data, found
    raise UserError(f"no clip '{readable(named)}' in {data}{_near(named, list(clips))}")


def of_file(path: Path, source: Source, data: Path) -> tuple[Path, Found]:
    """The clip that a file belongs to: from its own folder, or from `data` when it lies in there.

    The clip lacks a file that is found in neither. UserError for a file that is no clip's.
    """
    folder = path.absolute().parent
    beside = _owner(path, folder, source)
    if beside is not None and beside.video and beside.skeleton:
        return folder, beside
    if data.is_dir() and path.resolve().is_relative_to(data.resolve()):
        inside = _owner(path, data, source)
        if inside is not None:
            return data, inside
    if beside is None:
        raise UserError(
            f"{readable(path.name)} is not named as clips of {source.name} are; expected a form "
            f"like {source.example}"
        )
    return folder, beside


def _owner(path: Path, root: Path, source: Source) -> Found | None:
    here = path.resolve()
    for found in source.find(root).clips:
        for name in (found.video, found.skeleton):
            if name and Path(name).name == path.name and (root / name).resolve() == here:
                return found
    return None


def _file_names(found: Found) -> set[str]:
    names = [Path(name) for name in (found.video, found.skeleton) if name]
    return {text for name in names for text in (str(name), name.name, name.stem)}


def _near(named: str, names: list[str]) -> str:
    """A hint for a name among thousands: the one that begins most like it, and a few more."""
    wanted = named.upper()
    near = max(names, key=lambda name: len(os.path.commonprefix([wanted, name])), default="")
    likely = len(os.path.commonprefix([wanted, near])) >= LIKE
    hint = f"; did you mean {near!r}?" if likely else "."
    return f"{hint} There are {len(names)}, such as {', '.join(names[:EXAMPLES])}"
