"""One run of a stage on disk: what it is, its figures, its files. `publish.py` tells MLflow of it.

    tracking/<key>/record.json     name, experiment, parent, parameters, tags, artifacts, status,
                                   data sets, models with their figures
    tracking/<key>/metrics.csv     one value a line: milliseconds since 1970, step, name, value
    tracking/<key>/files/          artifacts as they were when they were logged
    tracking/<key>/published.json  what MLflow has of all this

A stage writes here and never waits for a server. The record holds everything that MLflow will get,
so that it can be published at any time, also when the stage's own results were overwritten since.
"""

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from components.files import read_json, waited_lock, write_json

FOLDER = "tracking"
RUNNING = "RUNNING"
HEADER = "ms,step,name,value\n"
HARD_LINK_ABOVE = 1 << 20


class Point(NamedTuple):
    """One value of a metric at a step; `ms` since 1970, as MLflow counts."""

    ms: int
    step: int
    name: str
    value: float


class Record:
    """The folder of one run. Any number of processes of a node may write to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._metrics = folder / "metrics.csv"

    def create(self, **about: Any) -> "Record":
        """Write `record.json` unless it is there."""
        with self._writing():
            if not self.body():
                body = {
                    **{"key": self.key, "parent": None, "params": {}, "tags": {}, "artifacts": {}},
                    **{"data_sets": {}, "models": {}},
                    **{"status": RUNNING, "started_at": now_ms(), "ended_at": None, **about},
                }
                write_json(self.folder / "record.json", body)
        return self

    @property
    def key(self) -> str:
        """The run's name on this side: known before any server has answered."""
        return self.folder.name

    @property
    def parent(self) -> "Record | None":
        """The record of the run above."""
        key = self.body()["parent"]
        return Record(self.folder.parent / key) if key else None

    def body(self) -> dict[str, Any]:
        """`record.json`."""
        return read_json(self.folder / "record.json")

    def published(self) -> dict[str, Any]:
        """What MLflow has: its id of the run, at which address, how many metric values, ...

        refused: how many values and files it would not take for what they are.
        models: by key its id of the model, and the entry that it has of it.
        """
        return {
            **{"run_id": None, "uri": None, "metrics": 0, "refused": 0, "status": [RUNNING, None]},
            **{"params": {}, "tags": {}, "artifacts": {}, "data_sets": {}, "models": {}},
            **read_json(self.folder / "published.json"),
        }

    def save_published(self, done: Mapping[str, Any]) -> None:
        """Remember what MLflow has."""
        write_json(self.folder / "published.json", done)

    def update(self, **changes: Any) -> None:
        """Replace fields of `record.json`; mappings are merged into those that are there."""
        with self._writing():
            body = self.body()
            for key, value in changes.items():
                body[key] = {**body[key], **value} if isinstance(value, Mapping) else value
            write_json(self.folder / "record.json", body)

    def add_metrics(self, values: Mapping[str, float], step: int, ms: int | None = None) -> None:
        """Write metric values. The first value of a (step, name) stands, whoever logs it again.

        A worker that restarts repeats the steps since its checkpoint: those are the same numbers.
        """
        ms = ms or now_ms()
        with self._writing():
            lines = self._lines()
            known = {line.partition(",")[2].rpartition(",")[0] for line in lines}
            fresh = [
                f"{ms},{step},{name},{float(value)!r}\n"
                for name, value in values.items()
                if f"{step},{name}" not in known
            ]
            whole = sum(len(line.encode()) for line in lines)
            with self._metrics.open("ab") as file:
                file.truncate(whole)  # without half a line that a kill left behind
                file.write("".join(fresh if lines else [HEADER, *fresh]).encode())

    def points(self, start: int = 0) -> list[Point]:
        """The values from number `start` on, in the order in which they were written."""
        rows = (line.split(",") for line in self._lines()[1 + start :])
        return [Point(int(ms), int(step), name, float(value)) for ms, step, name, value in rows]

    def count(self) -> int:
        """How many metric values there are."""
        return max(0, len(self._lines()) - 1)

    def keep(self, path: Path, folder: str = "") -> dict[str, Any]:
        """Keep a file, or a folder with all its files, as it is now, to be shown under `folder`.

        The entries for `artifacts` of `record.json`, without those that it has already.
        """
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        entries: dict[str, Any] = {}
        for file in files:
            kept = self._place(file.name)
            _link_or_copy(file, kept)
            entries |= self._entry(kept, Path(folder, file.relative_to(path.parent)))
        return entries

    def keep_text(self, content: str, name: str, folder: str = "") -> dict[str, Any]:
        """Keep `content` as a file called `name`; its entry, likewise."""
        kept = self._place(name)
        kept.write_text(content)
        return self._entry(kept, Path(folder, name))

    def _entry(self, kept: Path, target: Path) -> dict[str, Any]:
        with kept.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        known = self.body().get("artifacts", {}).get(target.as_posix())
        if known and known["sha256"] == digest:
            shutil.rmtree(kept.parent)
            return {}
        place = kept.relative_to(self.folder).as_posix()
        return {target.as_posix(): {"sha256": digest, "file": place}}

    def _place(self, name: str) -> Path:
        folder = self.folder / "files" / uuid.uuid4().hex
        folder.mkdir(parents=True)
        return folder / name

    def _lines(self) -> list[str]:
        """Whole lines. One without its end is being written, or was cut off by a kill."""
        text = self._metrics.read_text() if self._metrics.is_file() else ""
        return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def _writing(self) -> FileLock:
        self.folder.mkdir(parents=True, exist_ok=True)
        return waited_lock(self.folder / "write.lock")


def records(artifacts: Path) -> list[Record]:
    """All runs that wrote to `artifacts`, the oldest first."""
    found = [Record(file.parent) for file in (artifacts / FOLDER).glob("*/record.json")]
    return sorted(found, key=lambda record: record.body()["started_at"])


def newest(artifacts: Path, stage: str, model: str) -> Record | None:
    """The run of `stage` for `model` (its tags) that was started last."""
    for record in reversed(records(artifacts)):
        tags = record.body()["tags"]
        if (tags.get("stage"), tags.get("model")) == (stage, model):
            return record
    return None


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _link_or_copy(source: Path, target: Path) -> None:
    # Checkpoints are replaced, not overwritten, so a link to a large one keeps its bytes for free.
    try:
        if source.stat().st_size >= HARD_LINK_ABOVE:
            os.link(source, target)
            return
    except OSError:  # another file system, or one without links
        target.unlink(missing_ok=True)
    shutil.copyfile(source, target)
