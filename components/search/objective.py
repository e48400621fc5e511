"""One trial, and its worth: validation robust accuracy in the worst cell; clean accuracy; cost."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from components.attacks import CELLS
from components.errors import UserError

METRIC = "val_robust_acc_worst"

Status = Literal["open", "completed", "stopped", "failed"]


@dataclass(frozen=True)
class TrialRecord:
    """What is known of one trial.

    key:      names its folder and its training run
    drawn:    what the sampler drew; values: the dotted settings that follow from it
    method:   of training, whether searched or not
    status:   "open" until it is over, also when the time budget ended; "stopped" is by ASHA
    rows:     metrics by epoch
    finalist: the second rung's accuracies, if it came that far
    started_at, ended_at: seconds since 1970; None when it has not
    """

    number: int
    key: str
    drawn: dict[str, Any]
    values: dict[str, Any]
    method: str
    default: bool = False
    status: Status = "open"
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    error: str = ""
    finalist: dict[str, Any] | None = None
    started_at: float | None = None
    ended_at: float | None = None

    @property
    def over(self) -> bool:
        """Whether it need not run again."""
        return self.status != "open"

    @property
    def seconds(self) -> float:
        """Seconds of its epochs: training and validation, without the start of its processes."""
        return float(sum(row.get("seconds", 0.0) for row in self.rows.values()))


@dataclass(frozen=True)
class Score:
    """robust: validation robust accuracy in the worst cell; clean: without attack; both in [0, 1].

    passes: clips sent forward or backward through the model in training so far.
    """

    robust: float
    clean: float
    passes: float
    epoch: int


def worst_cell(row: Mapping[str, Any]) -> float:
    """The lowest robust accuracy over the cells of one epoch's row, under the fixed threat."""
    cells = [row[f"val_robust_acc_{cell}"] for cell in CELLS if f"val_robust_acc_{cell}" in row]
    if not cells:
        raise UserError(f"no validation robust accuracy in {sorted(row)}")
    return float(min(cells))


def score_of(trial: TrialRecord) -> Score | None:
    """The score of the trial's best epoch.

    None when it has not finished an epoch.
    """
    if not trial.rows:
        return None
    best = max(trial.rows.values(), key=lambda r: (worst_cell(r), r["val_clean_acc"], -r["epoch"]))
    return Score(
        worst_cell(best),
        float(best["val_clean_acc"]),
        sum(training_passes(row, trial.method) for row in trial.rows.values()),
        int(best["epoch"]),
    )


def training_passes(row: Mapping[str, Any], method: str) -> float:
    """Passes of one epoch of training: one a clip forward, one backward, attack and update.

    An attack of k steps costs k of both; the update one of both, two where the method learns from
    clean clips too; Free makes its update from the attack's own passes.
    """
    clips = float(row["clips_per_s"]) * float(row["train_seconds"])
    steps = float(row["steps"])
    if method == "natural":
        return 2 * clips
    if method == "free":
        return 2 * steps * clips
    update = 4 if method in ("trades", "mart") else 2
    return (2 * steps + update) * clips


def objectives(score: Score) -> tuple[float, float, float]:
    """Axes of the Pareto front: robust up, clean up, passes down."""
    return score.robust, score.clean, score.passes


def pareto(points: Iterable[tuple[float, float, float]]) -> list[bool]:
    """Which (robust, clean, passes) no other point beats in all three and differs from."""
    every = list(points)
    front: list[tuple[float, float, float]] = []
    # In this order whatever beats a point comes before it, so the front alone is to be asked.
    for p in sorted(set(every), key=lambda p: (-p[0], -p[1], p[2])):
        if not any(q[1] >= p[1] and q[2] <= p[2] for q in front):
            front.append(p)
    best = set(front)
    return [p in best for p in every]


def saving(trials: Iterable[TrialRecord], epochs: int) -> dict[str, float]:
    """Passes spent, and what the same trials would have spent had each run to its last epoch.

    A stopped trial's missing epochs are counted at the mean of those that it ran.
    """
    spent = full = 0.0
    for trial in trials:
        if not trial.rows:
            continue
        passes = sum(training_passes(row, trial.method) for row in trial.rows.values())
        spent += passes
        missing = epochs if trial.status == "stopped" else len(trial.rows)
        full += passes * missing / len(trial.rows)
    return {"passes": spent, "passes_without_asha": full, "saved": 1 - spent / full if full else 0}
