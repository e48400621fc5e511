"""Three pictures of a search, by Optuna: the Pareto front, what mattered, every trial as a line."""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import optuna
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import FrozenTrial, create_trial
from optuna.visualization.matplotlib import (
    plot_parallel_coordinate,
    plot_param_importances,
    plot_pareto_front,
)

from components.config import Config
from components.search.objective import TrialRecord, objectives, score_of
from components.search.space import to_optuna

FEWEST = 4  # trials, below which a share of variance says nothing
ROBUST, CLEAN = "validation robust accuracy, worst cell", "validation clean accuracy"


def draw(folder: Path, config: Config, trials: Sequence[TrialRecord]) -> list[Path]:
    """Write pareto.png, importances.png and parallel.png.

    Stopped trials count with their best epoch; trials without a score are left out.
    """
    study = scored_study(config, trials)
    robust = {trial.values[0] for trial in study.trials}
    enough = len(study.trials) >= FEWEST and len(robust) > 1
    pictures: dict[str, Callable[[], object] | None] = {
        "pareto.png": lambda: plot_pareto_front(
            study, targets=lambda t: (t.values[1], t.values[0]), target_names=[CLEAN, ROBUST]
        ),
        "importances.png": (
            lambda: plot_param_importances(
                study,
                evaluator=FanovaImportanceEvaluator(seed=config.seed),
                target=_robust,
                target_name=ROBUST,
            )
        )
        if enough
        else None,
        "parallel.png": lambda: plot_parallel_coordinate(study, target=_robust, target_name=ROBUST),
    }
    matplotlib.use("Agg")
    paths = []
    for name, plot in pictures.items():
        paths.append(folder / name)
        with matplotlib.rc_context():  # Optuna sets a style for the whole process
            if plot is None or not study.trials:
                plt.figure().text(0.5, 0.5, "too few trials with a score", ha="center")
            else:
                plot()
            plt.savefig(paths[-1], dpi=130, bbox_inches="tight")
            plt.close()
    return paths


def scored_study(config: Config, trials: Sequence[TrialRecord]) -> optuna.Study:
    """A study in memory of the trials with a score; robust up, clean up, passes down."""
    study = optuna.create_study(directions=["maximize", "maximize", "minimize"])
    space = {name: to_optuna(name, d) for name, d in config.tune.space.items()}
    for trial in trials:
        score = score_of(trial)
        if score is None or set(trial.drawn) != set(space):
            continue
        study.add_trial(
            create_trial(params=trial.drawn, distributions=space, values=list(objectives(score)))
        )
    return study


def _robust(trial: FrozenTrial) -> float:
    return float(trial.values[0])
