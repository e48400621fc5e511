"""One search as an Optuna study: what was tried, what comes next, and what a kill left open.

The study lies in Optuna's journal file, to which each operation is appended as a line of JSON and
synced. Nothing is unpickled: only Optuna's Redis backend stores pickled snapshots. Each draw is
seeded by (seed, trial number), so a search that was killed and one that was not draw the same.

An Optuna trial counts once its settings are stored with it (`SETTINGS`). Optuna cannot change a
trial that has ended, so the second rung's accuracies are attributes of the study.
"""

import hashlib
import json
import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from components.config import Config, to_dict
from components.config.load import ConfigError
from components.files import write_bytes
from components.fingerprint import code_fingerprint
from components.search.objective import Status, TrialRecord, score_of, worst_cell
from components.search.space import default_draw, grid, resolve, suggest, trial_config

log = logging.getLogger("search")

# How far a search goes may change between two runs of it; what a trial's score means may not.
LENGTH = ("trials", "max_hours", "finalists")
ATTEMPTS = 50  # draws in a row that repeat a trial or make no valid settings
SETTINGS, EPOCH, ERROR = "settings", "epoch ", "error"  # attributes of a trial
SESSION, FINALIST = "session ", "finalist "  # attributes of the study
STATUS: dict[TrialState, Status] = {
    TrialState.RUNNING: "open",
    TrialState.COMPLETE: "completed",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
}

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def identity(config: Config, data: str) -> str:
    """What makes two searches the same one: settings, clips (`data`, a fingerprint) and code."""
    values = to_dict(trial_config(config, {}))
    deciding = {key: values[key] for key in ("seed", "data", "model", "threat", "train")}
    deciding["tune"] = {k: v for k, v in values["tune"].items() if k not in LENGTH}
    return digest([deciding, data, code_fingerprint()], 12)


def digest(values: Any, size: int = 8) -> str:
    """A short hash of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:size]


class Search:
    """The search in `folder`, of which one process at a time may hold an instance."""

    def __init__(self, config: Config, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.config, self.folder = config, folder
        self.storage = _open_storage(folder)
        self.study = optuna.create_study(
            study_name=folder.name,
            storage=self.storage,
            direction="maximize",
            load_if_exists=True,
        )
        self._running: dict[str, optuna.Trial] = {}
        # What is asked for with every epoch and draw, so that ten thousand trials take no longer.
        self._ids: dict[str, int] = {}
        self._drawn: set[str] = set()
        self._default = False
        trials = self.study.get_trials(deepcopy=False)
        for trial in trials:
            if SETTINGS in trial.user_attrs:
                self._remember(trial._trial_id, trial.params, trial.user_attrs[SETTINGS])
        self._left_open = [t.number for t in trials if t.state == TrialState.RUNNING]
        sessions = [v for k, v in self.study.user_attrs.items() if k.startswith(SESSION)]
        self._seconds_before = sum(last - began for began, last in sessions)
        self._session = f"{SESSION}{len(sessions)}"
        self._began: float | None = None

    def records(self) -> list[TrialRecord]:
        """All trials in order of their numbers."""
        trials = self.study.get_trials(deepcopy=False)
        finalists = self.study.user_attrs
        return [_record(t, finalists) for t in trials if SETTINGS in t.user_attrs]

    def record(self, key: str) -> TrialRecord:
        """The trial of that key."""
        return _record(self.storage.get_trial(self._ids[key]), self.study.user_attrs)

    def next(self) -> TrialRecord | None:
        """The next trial to run: one that a kill left open, else a new one.

        None when there are enough, or when the space holds nothing new.
        """
        for _ in range(ATTEMPTS):
            if self._left_open:
                trial = self._resume(self._left_open.pop(0))
            elif len(self._ids) >= self.config.tune.trials:
                return None
            else:
                asked = self._ask()
                if asked is None:
                    return None
                trial = asked
            key = self._settle(trial)
            if key is not None:
                self._running[key] = trial
                return self.record(key)
        log.info("the space holds nothing new after %d draws", ATTEMPTS)
        return None

    def begin_session(self) -> None:
        """From now on the clock of the time budget runs."""
        self._began = time.time()
        self._tick()

    @property
    def wall_seconds(self) -> float:
        """Seconds that sessions of this search have run, this one included."""
        return self._seconds_before + (time.time() - self._began if self._began else 0.0)

    def out_of_time(self) -> str | None:
        """That the time budget is used up, in words; None while there is time."""
        budget, hours = self.config.tune.max_hours, self.wall_seconds / 3600
        if budget and hours >= budget:
            return f"tune.max_hours={budget:g} is used up ({hours:.2f} h)"
        return None

    def epoch(self, key: str, row: Mapping[str, Any]) -> None:
        """Store one epoch's metrics; an epoch that is reported twice counts once."""
        number = int(row["epoch"])
        if number in self.record(key).rows:
            return
        self._running[key].report(worst_cell(row), number)
        self._running[key].set_user_attr(f"{EPOCH}{number}", dict(row))
        self._tick()

    def end(self, key: str, status: Status, error: str = "") -> None:
        """The trial is over and will not run again."""
        trial = self._running.pop(key)
        if error:
            trial.set_user_attr(ERROR, error)
        state = next(state for state, name in STATUS.items() if name == status)
        score = score_of(self.record(key))
        done = state == TrialState.COMPLETE and score is not None
        self.study.tell(trial, score.robust if done and score else None, state=state)
        self._tick()

    def score_finalist(self, key: str, accuracies: Mapping[str, Any]) -> None:
        """Store what the second rung measured."""
        self.study.set_user_attr(f"{FINALIST}{key}", dict(accuracies))
        self._tick()

    def _ask(self) -> optuna.Trial | None:
        """A new Optuna trial, whose parameters `_settle` draws; None at the end of a grid."""
        trials = self.study.get_trials(deepcopy=False)
        if not any(t.state == TrialState.WAITING for t in trials):
            if not self._default:
                drawn = default_draw(self.config)
                self.study.enqueue_trial(drawn or {}, user_attrs={"default": True})
            elif self.config.tune.search == "grid":
                known = [t.params for t in trials]
                point = next((p for p in grid(self.config) if p not in known), None)
                if point is None:
                    return None
                self.study.enqueue_trial(point)
        waiting = [t.number for t in trials if t.state == TrialState.WAITING]
        self.study.sampler = self._sampler(waiting[0] if waiting else len(trials))
        return self.study.ask()

    def _resume(self, number: int) -> optuna.Trial:
        """The trial that an earlier process left running, to go on with."""
        self.study.sampler = self._sampler(number)
        study = self.storage.get_study_id_from_name(self.study.study_name)
        trial = self.storage.get_trial_id_from_study_id_trial_number(study, number)
        return optuna.Trial(self.study, trial)

    def _settle(self, trial: optuna.Trial) -> str | None:
        """Draw what is not drawn yet and store the settings; the key, None if they are no use."""
        if SETTINGS in trial.user_attrs:
            return str(trial.user_attrs[SETTINGS]["key"])
        default = bool(trial.user_attrs.get("default"))
        drawn: dict[str, Any] = {}
        if not default or default_draw(self.config) is not None:
            space = self.config.tune.space
            drawn = {name: suggest(trial, name, space[name]) for name in space}
        try:
            if not default and digest(drawn) in self._drawn:
                raise ConfigError("drawn before")
            values = resolve(self.config, drawn)
        except ConfigError as error:
            log.info("draw %d is left out: %s", trial.number, error)
            self.study.tell(trial, state=TrialState.FAIL)
            return None
        method = trial_config(self.config, values).train.method
        key = f"{trial.number:04d}-{digest(values)}"
        settings = {"key": key, "values": values, "method": method, "default": default}
        trial.set_user_attr(SETTINGS, settings)
        self._remember(trial._trial_id, drawn, settings)
        return key

    def _remember(self, trial: int, drawn: dict[str, Any], settings: dict[str, Any]) -> None:
        self._ids[settings["key"]] = trial
        self._drawn.add(digest(drawn))
        self._default |= settings["default"]

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = (self.config.seed * 7919 + number) % 2**31
        if self.config.tune.search != "tpe":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(
            seed=seed,
            n_startup_trials=max(3, min(10, self.config.tune.trials // 4)),
            multivariate=True,
            group=True,  # defaults outside the space have no drawn parameters
            constant_liar=True,  # trials that run count as poor, so that neighbours spread out
        )

    def _tick(self) -> None:
        """Store how long this session has lasted."""
        if self._began is not None:
            self.study.set_user_attr(self._session, [self._began, time.time()])


def _open_storage(folder: Path) -> JournalStorage:
    """The journal, without what a killed process left in the way of reading or writing it."""
    path = folder / "journal.jsonl"
    lock = JournalFileOpenLock(str(path))
    Path(f"{path}.lock").unlink(missing_ok=True)  # else the first write waits 30 s for its owner
    if path.is_file():
        whole, newline, cut = path.read_bytes().rpartition(b"\n")
        if cut:
            log.warning("%s: the last line was cut short and is left out", path)
            write_bytes(path, whole + newline)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def _record(trial: FrozenTrial, attributes: Mapping[str, Any]) -> TrialRecord:
    settings = trial.user_attrs[SETTINGS]
    return TrialRecord(
        number=trial.number,
        drawn=trial.params,
        status=STATUS[trial.state],
        rows=dict(sorted(_rows(trial))),
        error=trial.user_attrs.get(ERROR, ""),
        finalist=attributes.get(f"{FINALIST}{settings['key']}"),
        started_at=trial.datetime_start.timestamp() if trial.datetime_start else None,
        ended_at=trial.datetime_complete.timestamp() if trial.datetime_complete else None,
        **settings,
    )


def _rows(trial: FrozenTrial) -> Iterator[tuple[int, dict[str, Any]]]:
    for name, value in trial.user_attrs.items():
        if name.startswith(EPOCH):
            yield int(name.removeprefix(EPOCH)), value
