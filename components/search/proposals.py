"""Which trial comes next: the defaults, what a kill left open, then what the sampler proposes.

Optuna draws (TPE, random); a grid counts. Nothing of optuna is stored: the study is rebuilt from
the ledger, and each draw is seeded by (run seed, trial number), so a search that was killed and
one that was not propose the same.
"""

import logging
import warnings
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from components.config import Config
from components.config.load import ConfigError
from components.search.ledger import Ledger, Trial
from components.search.objective import objectives, score_of, worst_cell
from components.search.space import default_draw, grid, resolve, to_optuna, trial_config

log = logging.getLogger("search")

ATTEMPTS = 50  # draws that were had before, or that no valid settings belong to

warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


class Proposals:
    """Proposes trials and learns from those that are over; the ledger keeps both."""

    def __init__(self, config: Config, ledger: Ledger) -> None:
        self.config, self.ledger = config, ledger
        tune = config.tune
        self.space = {name: to_optuna(name, d) for name, d in tune.space.items()}
        self.multi = tune.multi_objective
        up, down = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
        directions = [up, up, down] if self.multi else [up]
        self.study = optuna.create_study(directions=directions, sampler=self._sampler(0))
        self.asked: dict[str, int] = {}  # optuna's own number of a trial that runs
        self.left_open = [t for t in ledger.ordered() if not t.over]
        for trial in ledger.finished():
            self._learn(trial)

    def next(self) -> Trial | None:
        """The next trial to run; None when there are enough, or when the space is used up."""
        if self.left_open:
            trial = self.left_open.pop(0)
            self._ask(trial.number, trial.drawn, trial.key)
            return trial
        number = len(self.ledger.trials)
        if number >= self.config.tune.trials:
            return None
        if number == 0 and self.config.tune.defaults_first:
            drawn = default_draw(self.config) or {}
            trial = self._record(drawn, resolve(self.config, drawn), default=True)
            self._ask(number, drawn, trial.key)
            return trial
        return self._grid() if self.config.tune.search == "grid" else self._draw(number)

    def learn(self, trial: Trial) -> None:
        """Tell the sampler what became of `trial`."""
        number = self.asked.pop(trial.key, None)
        if number is not None:
            self.study.tell(number, state=TrialState.FAIL)
        self._learn(trial)

    def _draw(self, number: int) -> Trial | None:
        known = [t.drawn for t in self.ledger.trials.values()]
        for attempt in range(ATTEMPTS):
            self.study.sampler = self._sampler(number + 1_000_003 * attempt)
            asked = self.study.ask(self.space)
            drawn = dict(asked.params)
            if drawn not in known:
                try:
                    values = resolve(self.config, drawn)
                except ConfigError as error:
                    log.info("a draw that makes no valid settings is left out: %s", error)
                else:
                    trial = self._record(drawn, values)
                    self.asked[trial.key] = asked.number
                    return trial
            self.study.tell(asked.number, state=TrialState.FAIL)
        log.info("the space holds nothing new after %d draws", ATTEMPTS)
        return None

    def _grid(self) -> Trial | None:
        known = [t.drawn for t in self.ledger.trials.values()]
        for drawn in grid(self.config):
            if drawn in known:
                continue
            try:
                return self._record(drawn, resolve(self.config, drawn))
            except ConfigError as error:
                log.info("a point that makes no valid settings is left out: %s", error)
        return None

    def _record(
        self, drawn: dict[str, Any], values: dict[str, Any], default: bool = False
    ) -> Trial:
        method = trial_config(self.config, values).train.method
        return self.ledger.add_trial(drawn, values, method, default=default)

    def _ask(self, number: int, drawn: dict[str, Any], key: str) -> None:
        """Let the sampler know that this point is being tried."""
        if self.config.tune.search == "grid" or set(drawn) != set(self.space):
            return
        self.study.enqueue_trial(drawn)
        self.asked[key] = self.study.ask(self.space).number

    def _learn(self, trial: Trial) -> None:
        score = score_of(trial)
        if score is None or trial.status == "failed" or set(trial.drawn) != set(self.space):
            return
        # Optuna's pruning knows one objective only; with several, a stopped trial counts as it is.
        pruned = trial.status != "completed" and not self.multi
        steps = {} if self.multi else {e: worst_cell(row) for e, row in trial.rows.items()}
        self.study.add_trial(
            create_trial(
                state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
                params=trial.drawn,
                distributions=self.space,
                values=None if pruned else list(objectives(score))[: 3 if self.multi else 1],
                intermediate_values=steps,
            )
        )

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = (self.config.seed * 7919 + number) % 2**31
        if self.config.tune.search != "tpe":
            return optuna.samplers.RandomSampler(seed=seed)
        startup = max(3, min(10, self.config.tune.trials // 4))
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=startup, multivariate=True, constant_liar=True
        )
