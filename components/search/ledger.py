"""What a search has done, on disk, event by event: a kill at any time loses no finished trial.

One JSON line an event, appended and synced. A line that a kill cut short is skipped with a word.
Nothing is unpickled (Ray Tune's own experiment state is a pickle).
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

log = logging.getLogger("search")

Status = Literal["open", "completed", "stopped", "failed"]
TRIAL_FIELDS = ("number", "key", "drawn", "values", "method", "default")
OVER = ("completed", "stopped", "failed")


@dataclass
class Trial:
    """One trial. `drawn` is what the sampler drew, `values` the dotted parameters it means.

    status: "open" until it is over, also when the search's budget ended; "stopped" is by ASHA
    method: of training, whether searched or not
    rows:   metrics by epoch; finalist: the scores of the second rung, when it had one
    began:  when its present process started; seconds: what earlier ones took
    """

    number: int
    key: str
    drawn: dict[str, Any]
    values: dict[str, Any]
    method: str
    default: bool = False
    status: Status = "open"
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""
    finalist: dict[str, Any] | None = None
    began: float | None = None

    @property
    def over(self) -> bool:
        """Whether it need not run again."""
        return self.status in OVER


def digest(values: Any, size: int = 8) -> str:
    """A short hash of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:size]


class Ledger:
    """The events of one search in `folder`/ledger.jsonl, and what they add up to."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "ledger.jsonl"
        self.trials: dict[str, Trial] = {}
        self.sequence: list[tuple[str, int]] = []  # (key, epoch) in the order of their ends
        self.wall = 0.0  # seconds of earlier sessions
        self._session: float | None = None
        self._last = 0.0
        for event in self._read():
            self._take(event)
        self._close_session()
        self._whole_lines()

    @property
    def wall_seconds(self) -> float:
        """Seconds that sessions of this search have run, this one included."""
        return self.wall + (time.time() - self._session if self._session else 0.0)

    @property
    def trial_seconds(self) -> float:
        """Seconds of all trials, those that are running included."""
        now = time.time()
        return sum(t.seconds + (now - t.began if t.began else 0.0) for t in self.trials.values())

    def finished(self) -> list[Trial]:
        """Trials that are over, in order of their numbers."""
        return [t for t in self.ordered() if t.over]

    def ordered(self) -> list[Trial]:
        """All trials in order of their numbers."""
        return sorted(self.trials.values(), key=lambda t: t.number)

    def begin_session(self) -> None:
        """From now on the wall clock runs."""
        self._append({"event": "session"})

    def add_trial(
        self,
        drawn: Mapping[str, Any],
        values: Mapping[str, Any],
        method: str,
        *,
        default: bool = False,
    ) -> Trial:
        """A new trial, to be run."""
        number = len(self.trials)
        key = f"{number:04d}-{digest(dict(values))}"
        self._append(
            {
                "event": "trial",
                "number": number,
                "key": key,
                "drawn": dict(drawn),
                "values": dict(values),
                "method": method,
                "default": default,
            }
        )
        return self.trials[key]

    def start(self, key: str) -> None:
        """Its process starts (again)."""
        self._append({"event": "start", "key": key})

    def epoch(self, key: str, row: Mapping[str, Any]) -> None:
        """One epoch's metrics; an epoch that is reported twice counts once."""
        self._append({"event": "epoch", "key": key, "row": dict(row)})

    def end(self, key: str, status: Status, error: str = "") -> None:
        """It is over and will not run again."""
        self._append({"event": "end", "key": key, "status": status, "error": error})

    def score_finalist(self, key: str, scores: Mapping[str, Any]) -> None:
        """What the second rung made of it."""
        self._append({"event": "finalist", "key": key, "scores": dict(scores)})

    def _append(self, event: dict[str, Any]) -> None:
        event = {"at": round(time.time(), 3), **event}
        with self.path.open("a") as file:
            file.write(json.dumps(event) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._take(event)

    def _read(self) -> list[dict[str, Any]]:
        if not self.path.is_file():
            return []
        events = []
        for number, line in enumerate(self.path.read_text().splitlines(), 1):
            try:
                events.append(json.loads(line))
            except json.JSONDecodeError:
                log.warning("%s: line %d was cut short and is left out", self.path, number)
        return events

    def _whole_lines(self) -> None:
        # After a cut line the next event must begin on a line of its own.
        if self.path.is_file() and not self.path.read_bytes().endswith(b"\n"):
            with self.path.open("a") as file:
                file.write("\n")

    def _take(self, event: Mapping[str, Any]) -> None:
        kind, at = event["event"], event["at"]
        if kind == "session":
            self._close_session()
            self._session = at
        elif kind == "trial":
            fields = {k: event[k] for k in TRIAL_FIELDS}
            self.trials[event["key"]] = Trial(**fields)
        else:
            trial = self.trials[event["key"]]
            if kind == "start":
                trial.began = at
            elif trial.began is not None and kind in ("epoch", "end"):
                trial.seconds += max(0.0, at - trial.began)
                trial.began = at if kind == "epoch" else None
            if kind == "epoch":
                epoch = int(event["row"]["epoch"])
                if epoch not in trial.rows:
                    self.sequence.append((trial.key, epoch))
                trial.rows[epoch] = event["row"]
            elif kind == "end":
                trial.status, trial.error = event["status"], event["error"]
            elif kind == "finalist":
                trial.finalist = event["scores"]
        self._last = at

    def _close_session(self) -> None:
        if self._session is not None:
            self.wall += max(0.0, self._last - self._session)
        self._session = None
        for trial in self.trials.values():
            trial.began = None
