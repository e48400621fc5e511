"""`clips.csv`: what each file of a folder shows, for videos whose names do not say it.

Columns `file`, `action`, `subject` and, where wanted, `setup`, `camera`, `replication` (1 without);
whole numbers from 1. `file` is relative to the table, with its extension.
"""

import csv
from pathlib import Path, PurePosixPath

from components.errors import UserError
from components.ntu.ids import ClipId, make_clip_id
from components.sources.base import inside

TABLE = "clips.csv"
_NEEDED = ("file", "action", "subject")
_PARTS = ("setup", "camera", "subject", "replication", "action")


def read_table(root: Path, table: str) -> dict[str, ClipId]:
    """The clip of each file, by its path relative to `root`.

    UserError with the line for a missing column, a number that is none, a path that leaves the
    folder, or two files for one clip.
    """
    folder = PurePosixPath(table).parent
    clips: dict[str, ClipId] = {}
    taken: dict[ClipId, int] = {}
    try:
        text = inside(root, table).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{table} is no UTF-8 text ({error}); save it as UTF-8") from error
    rows = csv.DictReader(text.splitlines())
    lacking = [name for name in _NEEDED if name not in (rows.fieldnames or ())]
    if lacking:
        raise UserError(f"{table} has no column {lacking[0]!r}; it needs {', '.join(_NEEDED)}")
    for line, row in enumerate(rows, 2):
        try:
            numbers = [int(row.get(part) or 1) for part in _PARTS]
            clip = make_clip_id(*numbers)
            path = str(folder / (row["file"] or ""))
            inside(root, path)
        except (TypeError, ValueError) as error:  # UserError is one
            raise UserError(f"{table}, line {line}: {error}") from error
        if not row["action"] or not row["subject"]:
            raise UserError(f"{table}, line {line}: action and subject are needed")
        if clip in taken:
            raise UserError(
                f"{table}, line {line}: {clip} is line {taken[clip]} already; number repeated "
                "takes by `replication`"
            )
        taken[clip], clips[path] = line, clip
    return clips
