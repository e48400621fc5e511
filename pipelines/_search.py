"""The search on Ray Tune: trials side by side, stopped early by ASHA, all of them in the study.

Ray's own `OptunaSearch` is not used, because it cannot go on after a kill: which Optuna trial
belongs to which of Tune's it knows from memory or a pickle alone, it ends trials that the time
budget stopped (Optuna cannot re-open those), tells the sampler the last epoch in place of the best,
and counts epochs from 1 again when a trial was restarted.
"""

import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher

from components.checkpoint import checkpoint_files
from components.config import to_dict
from components.search.objective import METRIC, TrialRecord, worst_cell
from components.search.output import (
    FINALIST_SUITE,
    finalists,
    is_scored,
    table,
    write_table,
    write_trial,
)
from components.search.space import trial_config
from components.search.study import Search
from pipelines._slots import slots
from pipelines._stage import StageError
from pipelines._trial import FAILED, HISTORY, run_trial, score_checkpoint
from pipelines._trial_cleanup import new_cleanup
from pipelines._trial_runs import TrialRuns

log = logging.getLogger("tune")

TIME = "epoch"
GRACE, REDUCTION = 1, 2  # ASHA: first rung after one epoch, half of the trials go on at each
RESTARTS = 2  # of a trial whose process was lost; one that fails by itself is not run again
KEPT = (
    "epoch", "loss", "train_clean_acc", "train_robust_acc", "val_clips", "val_clean_acc",
    "val_robust_acc_rgb", "val_robust_acc_skeleton", "val_robust_acc_both",
    "val_robust_acc_worst", "score", "clips_per_s", "train_seconds", "seconds", "steps", "lr",
    "rgb_eps", "skeleton_eps", "rolled_back", "finished_at",
)  # fmt: skip


def run_name(search: Search, key: str) -> str:
    """Name of a trial's training run in the run storage, which other runs share."""
    return f"tune-{search.folder.name}-{key}"


class StudySearcher(Searcher):
    """Hands Tune the study's trials. Tune's copy of the state is never read back."""

    def __init__(self, search: Search, given: Mapping[str, Any]) -> None:
        super().__init__(metric=METRIC, mode="max")
        self.search, self.given = search, given

    def suggest(self, trial_id: str) -> Any:
        """The next trial's arguments; FINISHED when there is none, or no time left."""
        trial = None if self.search.out_of_time() else self.search.next()
        if trial is None:
            return Searcher.FINISHED
        return {
            **self.given,
            "key": trial.key,
            "run": run_name(self.search, trial.key),
            "config": json.dumps(to_dict(trial_config(self.search.config, trial.values))),
            "out": str(self.search.folder / "trials" / trial.key),
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: `SearchCallback` tells the study."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class Asha(ASHAScheduler):
    """ASHA (Li et al., arXiv 1810.05934) that knows earlier sessions, and spares the defaults.

    Without a full run of the defaults nobody could say whether the search found anything better.
    """

    def __init__(self, search: Search) -> None:
        self.search, self.epochs = search, search.config.tune.epochs
        super().__init__(
            time_attr=TIME,
            metric=METRIC,
            mode="max",
            max_t=self.epochs + 1,  # one more than there are: a full run is none of its stops
            grace_period=GRACE,
            reduction_factor=REDUCTION,
        )
        for trial in search.records():
            if trial.over:
                self._replay(trial)

    def on_trial_result(
        self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]
    ) -> str:
        """STOP for a trial below the better half of those that came as far."""
        action = super().on_trial_result(tune_controller, trial, result)
        default = self.search.record(trial.config["key"]).default
        last = result.get(TIME, 0) >= self.epochs  # it ends by itself, and keeps its model
        return TrialScheduler.CONTINUE if default or last else action

    def _replay(self, trial: TrialRecord) -> None:
        controller: Any = None  # ASHA has no use for it
        stand_in = TuneTrial("replayed", trial_id=f"replayed-{trial.key}", stub=True)
        self.on_trial_add(controller, stand_in)
        for epoch in sorted(trial.rows):
            row = {TIME: epoch, METRIC: worst_cell(trial.rows[epoch])}
            super().on_trial_result(controller, stand_in, row)


class SearchCallback(tune.Callback):
    """Writes everything down as it happens: study, files, MLflow; frees what a trial held."""

    def __init__(self, search: Search, runs: TrialRuns, cleanup: Any, out: Path) -> None:
        self.search, self.runs, self.cleanup, self.out = search, runs, cleanup, out
        self.failures: dict[str, str] = {}
        self.table_at = 0.0

    def on_trial_start(self, iteration: int, trials: list[Any], trial: TuneTrial, **_: Any) -> None:
        """Its process starts, for the first time or again."""
        known = self._known(trial)
        self.runs.start(known)
        write_trial(self.out / "trials", known, running=True)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: TuneTrial, result: dict[str, Any], **_: Any
    ) -> None:
        """An epoch, or the last report."""
        known = self._known(trial)
        if FAILED in result:
            self.failures[known.key] = result[FAILED]
        for row in [result] if TIME in result else result.get(HISTORY, []):
            if row[TIME] not in known.rows:
                kept = {name: row[name] for name in KEPT if name in row}
                self.search.epoch(known.key, kept)
                self.runs.epoch(known, kept)
                self._write(known.key)

    def on_trial_complete(
        self, iteration: int, trials: list[Any], trial: TuneTrial, **_: Any
    ) -> None:
        """It ended by itself, or ASHA ended it."""
        known = self._known(trial)
        if known.key in self.failures:
            self._over(known.key, "failed", self.failures[known.key])
        elif len(known.rows) >= self.search.config.tune.epochs:
            self._over(known.key, "completed")
        else:
            self._over(known.key, "stopped")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: TuneTrial, **_: Any) -> None:
        """Its process was lost more than RESTARTS times."""
        error = trial.get_error() or "its process was lost"
        self._over(self._known(trial).key, "failed", str(error)[-500:])

    def _over(self, key: str, status: Any, error: str = "") -> None:
        self.search.end(key, status, error)
        self.runs.end(self.search.record(key))
        self._write(key)
        self.cleanup.release.remote(key)  # takes a moment, in which others may report

    def _write(self, key: str) -> None:
        write_trial(self.out / "trials", self.search.record(key), running=True)
        began = time.monotonic()
        if began >= self.table_at:  # it has all trials, and may cost a twentieth of the time
            write_table(self.out, table(self.search.config, self.search.records()))
            self.table_at = began + 20 * (time.monotonic() - began)

    def _known(self, trial: TuneTrial) -> TrialRecord:
        return self.search.record(trial.config["key"])


class BudgetStopper(tune.Stopper):
    """Ends every running trial when the time budget is used up; they stay open in the study."""

    def __init__(self, search: Search) -> None:
        self.search = search

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial alone."""
        return False

    def stop_all(self) -> bool:
        """Asked again and again."""
        return self.search.out_of_time() is not None


def run_search(search: Search, runs: TrialRuns, *, out: Path, shards: str, storage: str) -> str:
    """Run trials until there are enough or the time is up; why it ended, in words.

    out: local folder of the tables; storage: folder or URI that all nodes see. Needs a running
    Ray. Raises StageError when it was interrupted; the study then holds what was done.
    """
    config = search.config
    search.begin_session()
    cleanup = new_cleanup()
    callback = SearchCallback(search, runs, cleanup, out)
    # A trial's own process needs no CPU, and writes its checkpoints beside the driver.
    here = f"node:{ray.util.get_node_ip_address()}"
    # A trial's last report carries its history or its failure, and no metric.
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # the study has it all
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # nothing to save: the study is on disk
    tuner = tune.Tuner(
        tune.with_resources(run_trial, {here: 0.001}),
        tune_config=tune.TuneConfig(
            search_alg=StudySearcher(
                search, {"shards": shards, "storage": storage, "cleanup": cleanup}
            ),
            scheduler=Asha(search),
            num_samples=-1,
            max_concurrent_trials=slots(config, ray.cluster_resources()),
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(search.folder / "ray"),
            stop=BudgetStopper(search),
            failure_config=tune.FailureConfig(max_failures=RESTARTS),
            callbacks=[callback],
            verbose=0,
        ),
    )
    # Tune looks for result files, which the study replaces, and would complain for each trial.
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    # Whatever `verbose` says, Tune's newer output begins with a box ("Number of trials": 2^63 - 1).
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    tuner.fit()
    ended = search.out_of_time()
    for trial in search.records():
        if not trial.over:
            ray.get(cleanup.release.remote(trial.key))
            runs.end(trial)
            write_trial(out / "trials", trial)
            if ended is None:
                raise StageError("the search was interrupted; run the same command again to go on")
    return ended or f"{len(search.records())} trials are done"


def score_finalists(search: Search, shards: str) -> None:
    """Second rung: score the finalists that have no score of that kind yet, side by side."""
    config = search.config
    suite, limit, section = FINALIST_SUITE, config.train.val_clips, config.ray
    waiting: dict[Any, str] = {}
    task: Any = ray.remote(score_checkpoint).options(
        num_cpus=section.cpus_per_worker, num_gpus=section.gpus_per_worker, max_retries=3
    )
    for trial in finalists(search.records(), config.tune.finalists):
        best = search.folder / "trials" / trial.key / "best"
        if is_scored(config, trial) or not best.is_dir():
            continue
        settings, files = trial_config(config, trial.values), checkpoint_files(best)
        waiting[task.remote(settings, shards, files, suite, clips=limit)] = trial.key
    while waiting:
        (done,), _ = ray.wait(list(waiting), num_returns=1)
        key = waiting.pop(done)
        scores = ray.get(done)
        search.score_finalist(key, scores)
        log.info(
            "finalist %s under suite %s: robust %.3f [%.3f, %.3f], clean %.3f",
            key,
            suite,
            scores["robust"]["value"],
            scores["robust"]["low"],
            scores["robust"]["high"],
            scores["clean"]["value"],
        )
