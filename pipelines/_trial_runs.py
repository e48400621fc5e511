"""The search in MLflow: one run for the search, and a nested one for each trial."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.config import Config
from components.search.objective import TrialRecord, score_of, worst_cell
from components.search.space import trial_config
from mlflow_tracking.names import epoch_metrics
from mlflow_tracking.run import Run, start_run

log = logging.getLogger("tune")


class TrialRuns:
    """Logs every trial and its epochs under `parent`."""

    def __init__(self, config: Config, artifacts: Path, parent: Run) -> None:
        self.config, self.artifacts, self.parent = config, artifacts, parent
        self.runs: dict[str, Run] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks into a file of its own, which nobody reads here."""
        return {}

    def start(self, trial: TrialRecord) -> None:
        """Open the trial's run, or go on in the one that a kill left open."""
        words = ", ".join(f"{k}={_short(v)}" for k, v in trial.values.items())
        log.info("trial %d: %s", trial.number, "the defaults" if trial.default else words)
        if trial.key in self.runs:
            return
        self.runs[trial.key] = start_run(
            "tune",
            trial_config(self.config, trial.values),
            name=f"trial {trial.key}",
            artifacts=self.artifacts,
            parent=self.parent.key,
            tags={"trial": trial.number, **{f"tune.{k}": v for k, v in trial.values.items()}},
        )

    def epoch(self, trial: TrialRecord, row: Mapping[str, Any]) -> None:
        """One epoch's figures."""
        log.info(
            "trial %d epoch %d/%d: robust %.3f clean %.3f (validation, worst cell)",
            trial.number,
            row["epoch"],
            self.config.tune.epochs,
            worst_cell(row),
            row["val_clean_acc"],
        )
        figures = {**epoch_metrics(row), "val/robust_acc/worst": worst_cell(row)}
        self.runs[trial.key].log_metrics(figures, step=row["epoch"], at=row.get("finished_at"))

    def end(self, trial: TrialRecord) -> None:
        """Close the trial's run; one that did not end is marked as such."""
        run = self.runs.pop(trial.key, None)
        if run is None:
            return
        score = score_of(trial)
        log.info(
            "trial %d is %s%s",
            trial.number,
            trial.status,
            f": robust {score.robust:.3f}, clean {score.clean:.3f}" if score else "",
        )
        run.set_tags({"trial.status": trial.status})
        if trial.error:
            run.set_tags({"error": trial.error})
        run.end({"failed": "FAILED", "open": "KILLED"}.get(trial.status, "FINISHED"))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
