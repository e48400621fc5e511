"""Where everything a run logs goes first: an append-only journal on disk, one folder a run.

    <outbox>/<key>/run.json        what the run is: experiment, name, parent, tags
    <outbox>/<key>/journal.jsonl   one event a line
    <outbox>/<key>/files/          copies of the artifacts that are still to be sent
    <outbox>/<key>/state.json      MLflow's id of the run and how far the journal was sent

Training writes here and never waits for a server. `sender.py` carries the events over, in order;
what was sent twice after a kill is stored once, because an event keeps its time stamp and MLflow
stores one metric value per (run, key, step, time).
"""

import json
import math
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow_tracking.files import locked, read_json, write_json

FOLDER = "mlflow_outbox"
HARD_LINK_ABOVE = 1 << 20


class Outbox:
    """The journal of one run. Any number of processes of a node may append to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._guard = threading.Lock()
        self._known: set[tuple[str, int]] | None = None
        self._known_to = 0

    @classmethod
    def create(cls, root: Path, label: str, about: Mapping[str, Any]) -> "Outbox":
        """A new outbox under `root`; `label` makes its key readable."""
        key = f"{label}-{uuid.uuid4().hex[:8]}"
        box = cls(root / key)
        write_json(box.folder / "run.json", {"key": key, "start_ms": now_ms(), **about})
        return box

    @property
    def key(self) -> str:
        """The run's name on this side: known before any server has answered."""
        return self.folder.name

    @property
    def about(self) -> dict[str, Any]:
        """Experiment, run name, parent's key, tags, start."""
        return read_json(self.folder / "run.json")

    @property
    def journal(self) -> Path:
        """The file of events."""
        return self.folder / "journal.jsonl"

    def state(self) -> dict[str, Any]:
        """`run_id`, `offset` (bytes sent), `refused` (events the server would not take)."""
        return {"run_id": None, "offset": 0, "refused": 0, **read_json(self.folder / "state.json")}

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Remember how far the journal was sent."""
        write_json(self.folder / "state.json", dict(state))

    def append(self, kind: str, **event: Any) -> None:
        """Write one event; it is on the disk when this returns."""
        line = json.dumps({"kind": kind, "ms": now_ms(), **event}, default=str) + "\n"
        self._write(line)

    def append_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Write metric values. The first value of a (key, step) stands, whoever logs it again.

        A worker that restarts repeats the steps since its checkpoint: those are the same numbers.
        Values that are not finite are kept in the journal as such and not sent.
        """
        with self._guard, locked(self.folder / "journal.lock"):
            known = self._known_metrics()
            fresh = {k: float(v) for k, v in values.items() if (k, step) not in known}
            finite = {k: v for k, v in fresh.items() if math.isfinite(v)}
            odd = {k: str(v) for k, v in fresh.items() if k not in finite}
            event = {"kind": "metrics", "ms": now_ms(), "step": step, "values": finite}
            if odd:
                event["not_finite"] = odd
            if fresh:
                self._append_locked(json.dumps(event) + "\n", safe=False)

    def append_file(self, path: Path, folder: str) -> None:
        """Write an artifact: a file, or a folder with all its files, as they are now."""
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            inside = file.parent.relative_to(path).as_posix() if path.is_dir() else ""
            target = "/".join(p for p in (folder, path.name if path.is_dir() else "", inside) if p)
            kept = self.folder / "files" / uuid.uuid4().hex / file.name
            kept.parent.mkdir(parents=True)
            _keep(file, kept)
            self.append(
                "artifact",
                file=kept.relative_to(self.folder).as_posix(),
                folder=target.removesuffix("/."),
                source=str(file),
            )

    def events(self, offset: int) -> Iterator[tuple[dict[str, Any], int]]:
        """Events from byte `offset` on, each with the offset after it.

        A line without its end is being written, or was cut off by a kill: it is no event yet.
        """
        if not self.journal.is_file():
            return
        with self.journal.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                try:
                    yield json.loads(line), offset
                except json.JSONDecodeError:
                    # Half a line that a kill left behind, ended by the next writer.
                    yield {"kind": "torn"}, offset

    def pending(self) -> int:
        """Events that were not sent yet."""
        return sum(1 for event, _ in self.events(self.state()["offset"]) if event["kind"] != "torn")

    def _known_metrics(self) -> set[tuple[str, int]]:
        # Others may have appended since the last look, so read what is new.
        if self._known is None:
            self._known = set()
        for event, offset in self.events(self._known_to):
            self._known_to = offset
            if event["kind"] == "metrics":
                keys = [*event["values"], *event.get("not_finite", ())]
                self._known.update((key, event["step"]) for key in keys)
        return self._known

    def _write(self, line: str) -> None:
        with self._guard, locked(self.folder / "journal.lock"):
            self._append_locked(line)

    def _append_locked(self, line: str, *, safe: bool = True) -> None:
        with self.journal.open("ab+") as file:
            if file.tell() and not _ends_line(file):
                file.write(b"\n")
            file.write(line.encode())
            file.flush()
            # A killed process loses nothing of what the system has. Waiting for the disk at every
            # step of a training run would only guard against a power cut.
            if safe:
                os.fsync(file.fileno())


def now_ms() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return time.time_ns() // 1_000_000


def newest(artifacts: Path, stage: str, model: str, of: str = ".") -> Outbox | None:
    """The run of `stage` for `model` (its tag) that was started last.

    of: the folder inside `artifacts` that the run wrote to; several seeds share the journals.
    """
    boxes = [Outbox(file.parent) for file in (artifacts / FOLDER).glob("*/run.json")]
    fitting = [box for box in boxes if _of_what(box.about) == (stage, model, of)]
    return max(fitting, key=lambda box: box.about["start_ms"], default=None)


def _of_what(about: Mapping[str, Any]) -> tuple[str | None, str | None, str]:
    tags = about["tags"]
    return tags.get("stage"), tags.get("model"), about.get("artifacts", ".")


def _ends_line(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _keep(source: Path, target: Path) -> None:
    # Checkpoints are replaced, not overwritten, so a link to a large one keeps its bytes for free.
    if source.stat().st_size < HARD_LINK_ABOVE or not _link(source, target):
        shutil.copyfile(source, target)


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError:
        return False  # another file system, or one without links
    return True
