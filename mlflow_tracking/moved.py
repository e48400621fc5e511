"""A sqlite store whose project was moved or copied: its records still name the former folder.

MLflow keeps the place of every run's and model's files as a whole path. In a folder of another name
it would not find them, make the former path anew, and write there.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from components.errors import UserError

FOLDER = "mlartifacts"  # beside the database file
ASK_SECONDS = 3.0  # for a file that another process has locked
# Where MLflow's tables keep places of files.
COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def artifacts_of(file: Path) -> Path:
    """The folder of the files that belong to the runs in a database file."""
    return file.absolute().parent / FOLDER


def former_folders(file: Path) -> list[Path]:
    """Folders under which the store looks for its files, though they lie beside it by now.

    Empty for a store that has not moved, and for one that is not there. A link at the former place
    is as good as no move. UserError for a file that is no store of MLflow's.
    """
    if not file.exists():
        return []
    new = artifacts_of(file)
    found = []
    try:
        with closing(_read_only(file)) as database:
            for (location,) in database.execute("select artifact_location from experiments"):
                old = _place(location or "")
                if old is not None and old.resolve() != new.resolve():
                    # A copied store: the former folder is there, and belongs to the original.
                    if not old.exists() or new.exists():
                        found.append(old)
    except sqlite3.Error as error:
        # sqlite makes an empty file before MLflow makes its tables; a busy writer locks it.
        if file.stat().st_size == 0 or "locked" in str(error):
            return []
        raise UserError(
            f"{file} is no store of MLflow's ({error}); name another file in tracking.uri or "
            "MLFLOW_TRACKING_URI"
        ) from error
    return list(dict.fromkeys(found))


def check_not_moved(file: Path) -> None:
    """UserError, with the two ways to mend it, when the store has moved or was copied."""
    for old in former_folders(file):
        new = artifacts_of(file)
        said = "is not there" if not old.exists() else f"belongs to {old.parent}"
        link = "" if old.exists() else f", or link it: ln -s {new.parent} {old.parent}"
        raise UserError(
            f"the runs in {file} have their files under {old}, which {said}: the project was "
            f"moved or copied; `python -m pipelines.relocate` gives the records the new path{link}"
        )


def relocate(file: Path) -> tuple[int, Path]:
    """Give all records the folder beside the file; how many were changed, and the copy from before.

    All of them or none: it is one transaction.
    """
    new = artifacts_of(file)
    former = former_folders(file)
    copy = _free_name(file)
    changed = 0
    with closing(sqlite3.connect(file, timeout=ASK_SECONDS)) as database:
        with closing(sqlite3.connect(copy)) as kept:
            database.backup(kept)
        with database:
            for old in former:
                for before, after in ((old.as_uri(), new.as_uri()), (str(old), str(new))):
                    for table, column in _columns(database):
                        changed += database.execute(
                            f"update {table} set {column} = ? || substr({column}, ?) "
                            f"where {column} = ? or substr({column}, 1, ?) = ?",
                            (after, len(before) + 1, before, len(before) + 1, f"{before}/"),
                        ).rowcount
    return changed, copy


def _columns(database: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Those of COLUMNS that this version of MLflow has."""
    for table, column in COLUMNS:
        if any(row[1] == column for row in database.execute(f"pragma table_info({table})")):
            yield table, column


def _read_only(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=ASK_SECONDS)


def _place(location: str) -> Path | None:
    """The `mlartifacts` of an experiment of ours; None for places that others have chosen."""
    parts = urlsplit(location)
    if parts.scheme not in ("", "file"):
        return None
    path = Path(unquote(parts.path) if parts.scheme else location)
    return path if path.name == FOLDER and path.is_absolute() else None


def _free_name(file: Path) -> Path:
    name = file.with_name(f"{file.name}.before-relocate")
    number = 1
    while name.exists():
        number += 1
        name = file.with_name(f"{file.name}.before-relocate-{number}")
    return name
