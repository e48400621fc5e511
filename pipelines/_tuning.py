"""The search on Ray Tune: proposals in, trials side by side, ASHA, everything into the ledger."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher

from components.config import Config, to_dict
from components.config.tune import TuneSection
from components.search.budget import Budget, slots
from components.search.ledger import Ledger, Trial
from components.search.objective import METRIC, worst_cell
from components.search.proposals import Proposals
from components.search.results import finalists, is_scored
from components.search.space import trial_config
from pipelines._finalists import score_checkpoint
from pipelines._leash import new_leash
from pipelines._stage import StageError
from pipelines._trial import FAILED, HISTORY, run_trial
from pipelines._trial_runs import TrialRuns

log = logging.getLogger("tune")

TIME = "epoch"
KEPT = (
    "epoch", "loss", "train_clean_acc", "train_robust_acc", "val_clips", "val_clean_acc",
    "val_robust_acc_rgb", "val_robust_acc_skeleton", "val_robust_acc_both",
    "val_robust_acc_worst", "score", "clips_per_s", "train_seconds", "seconds", "steps", "lr",
    "rgb_eps", "skeleton_eps", "rolled_back",
)  # fmt: skip


def run_name(ledger: Ledger, key: str) -> str:
    """Name of a trial's training run in the run storage, which other runs share."""
    return f"tune-{ledger.path.parent.name}-{key}"


class Propose(Searcher):
    """Our proposals in the form that Tune asks for. Tune's copy of the state is never read back."""

    def __init__(
        self, proposals: Proposals, budget: Budget, given: Mapping[str, Any], folder: Path
    ) -> None:
        super().__init__(metric=METRIC, mode="max")
        self.proposals, self.budget, self.given, self.folder = proposals, budget, given, folder

    def suggest(self, trial_id: str) -> Any:
        """The next trial's process arguments; FINISHED when there is none, or no budget."""
        ledger = self.proposals.ledger
        trial = None if self.budget.spent(ledger) else self.proposals.next()
        if trial is None:
            return Searcher.FINISHED
        config = trial_config(self.proposals.config, trial.values)
        dumped = json.dumps(to_dict(config))
        return {
            **self.given,
            "key": trial.key,
            "run": run_name(ledger, trial.key),
            "config": dumped,
            "out": str(self.folder / "trials" / trial.key),
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: `Notes` tells the proposals, once the ledger knows."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the ledger has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class Asha(ASHAScheduler):
    """ASHA (Li et al., arXiv 1810.05934) that knows earlier sessions, and spares the defaults.

    Without a full run of the defaults nobody could say whether the search found anything better.
    """

    def __init__(self, section: TuneSection, ledger: Ledger) -> None:
        super().__init__(
            time_attr=TIME,
            metric=METRIC,
            mode="max",
            max_t=section.epochs + 1,  # one more than there are: a full run is none of its stops
            grace_period=min(section.grace_epochs, section.epochs),
            reduction_factor=section.reduction,
        )
        self.ledger = ledger
        for trial in ledger.finished():
            self._replay(trial)

    def on_trial_result(
        self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]
    ) -> str:
        """STOP for a trial below the best share of those that came as far."""
        action = super().on_trial_result(tune_controller, trial, result)
        known = self.ledger.trials[trial.config["key"]]
        last = result.get(TIME, 0) >= self._max_t - 1  # it ends by itself, and keeps its model
        return TrialScheduler.CONTINUE if known.default or last else action

    def _replay(self, trial: Trial) -> None:
        controller: Any = None  # ASHA has no use for it
        stand_in = TuneTrial("replayed", trial_id=f"replayed-{trial.key}", stub=True)
        self.on_trial_add(controller, stand_in)
        for epoch in sorted(trial.rows):
            row = {TIME: epoch, METRIC: worst_cell(trial.rows[epoch])}
            super().on_trial_result(controller, stand_in, row)


class Notes(tune.Callback):
    """Writes everything down as it happens: ledger, proposals, MLflow; ends what a trial holds."""

    def __init__(self, proposals: Proposals, runs: TrialRuns, leash: Any) -> None:
        self.proposals, self.runs, self.leash = proposals, runs, leash
        self.failures: dict[str, str] = {}

    @property
    def ledger(self) -> Ledger:
        """What is known of all trials."""
        return self.proposals.ledger

    def on_trial_start(self, iteration: int, trials: list[Any], trial: TuneTrial, **_: Any) -> None:
        """Its process starts, for the first time or again."""
        known = self._known(trial)
        self.ledger.start(known.key)
        self.runs.start(known)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: TuneTrial, result: dict[str, Any], **_: Any
    ) -> None:
        """An epoch, or the last word."""
        known = self._known(trial)
        if FAILED in result:
            self.failures[known.key] = result[FAILED]
        for row in [result] if TIME in result else result.get(HISTORY, []):
            if row[TIME] not in known.rows:
                kept = {name: row[name] for name in KEPT if name in row}
                self.ledger.epoch(known.key, kept)
                self.runs.epoch(known, kept)

    def on_trial_complete(
        self, iteration: int, trials: list[Any], trial: TuneTrial, **_: Any
    ) -> None:
        """It ended by itself, or ASHA ended it."""
        known = self._known(trial)
        if known.key in self.failures:
            self._over(known, "failed", self.failures[known.key])
        elif len(known.rows) >= self.proposals.config.tune.epochs:
            self._over(known, "completed")
        else:
            self._over(known, "stopped")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: TuneTrial, **_: Any) -> None:
        """Its process was lost more often than tune.max_failures allows."""
        error = trial.get_error() or "its process was lost"
        self._over(self._known(trial), "failed", str(error)[-500:])

    def _over(self, known: Trial, status: Any, error: str = "") -> None:
        self.ledger.end(known.key, status, error)
        self.proposals.learn(known)
        self.runs.end(known)
        self.leash.release.remote(known.key)  # takes a moment, in which others may report

    def _known(self, trial: TuneTrial) -> Trial:
        return self.ledger.trials[trial.config["key"]]


class Spent(tune.Stopper):
    """Ends every running trial when the time budget is used up; they stay open in the ledger."""

    def __init__(self, budget: Budget, ledger: Ledger) -> None:
        self.budget, self.ledger = budget, ledger

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial alone."""
        return False

    def stop_all(self) -> bool:
        """Asked again and again."""
        return self.budget.spent(self.ledger) is not None


def run_search(
    config: Config,
    proposals: Proposals,
    runs: TrialRuns,
    *,
    folder: Path,
    shards: str,
    storage: str,
) -> str:
    """Run trials until there are enough or the budget is spent; why it ended, in words.

    folder: the search's own, local; storage: folder or URI that all nodes see. Needs a running
    Ray. Raises StageError when it was interrupted; the ledger then holds what was done.
    """
    ledger, budget = proposals.ledger, Budget.of(config.tune)
    leash = new_leash()
    given = {"shards": shards, "storage": storage, "leash": leash}
    # A trial's own process needs no CPU, and writes its checkpoints beside the driver.
    here = f"node:{ray.util.get_node_ip_address()}"
    # A trial's last report carries its history or its failure, and no metric.
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # the ledger and MLflow have it all
    scheduler = Asha(config.tune, ledger) if config.tune.asha else None
    tuner = tune.Tuner(
        tune.with_resources(run_trial, {here: 0.001}),
        tune_config=tune.TuneConfig(
            search_alg=Propose(proposals, budget, given, folder),
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=slots(config, ray.cluster_resources()),
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder / "ray"),
            stop=Spent(budget, ledger),
            failure_config=tune.FailureConfig(max_failures=config.tune.max_failures),
            callbacks=[Notes(proposals, runs, leash)],
            verbose=0,
        ),
    )
    # Tune looks for result files, which the ledger replaces, and would complain for each trial.
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    tuner.fit()
    spent = budget.spent(ledger)
    for trial in ledger.ordered():
        if not trial.over:
            ray.get(leash.release.remote(trial.key))
            runs.end(trial)
            if spent is None:
                raise StageError("the search was interrupted; run the same command again to go on")
    return spent or f"{len(ledger.trials)} trials are done"


def rescore(config: Config, ledger: Ledger, folder: Path, shards: str) -> None:
    """Second rung: score the finalists that have no score of that kind yet, side by side."""
    suite, limit, section = config.tune.finalist_suite, config.tune.finalist_clips, config.ray
    waiting: dict[Any, str] = {}
    task: Any = ray.remote(score_checkpoint).options(
        num_cpus=section.cpus_per_worker, num_gpus=section.gpus_per_worker, max_retries=3
    )
    for trial in finalists(ledger.ordered(), config.tune.finalists):
        best = folder / "trials" / trial.key / "best"
        if is_scored(config, trial) or not best.is_dir():
            continue
        settings = trial_config(config, trial.values)
        waiting[task.remote(settings, shards, best, suite, clips=limit)] = trial.key
    while waiting:
        (done,), _ = ray.wait(list(waiting), num_returns=1)
        key = waiting.pop(done)
        scores = ray.get(done)
        ledger.score_finalist(key, scores)
        log.info(
            "finalist %s under suite %s: robust %.3f [%.3f, %.3f], clean %.3f",
            key,
            suite,
            scores["robust"]["value"],
            scores["robust"]["low"],
            scores["robust"]["high"],
            scores["clean"]["value"],
        )
