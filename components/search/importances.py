"""How much each parameter of the space decided, by optuna's fANOVA over the finished trials."""

from collections.abc import Sequence

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState, create_trial

from components.config import Config
from components.search.ledger import Trial
from components.search.objective import score_of
from components.search.space import to_optuna

FEWEST = 4  # trials, below which a share of variance says nothing


def importances(config: Config, trials: Sequence[Trial], seed: int = 0) -> dict[str, float]:
    """Share of the variance of robust accuracy by parameter, largest first, summing to 1.

    Empty with fewer than 4 trials, or when all score alike. Stopped trials count with the best
    they had reached (Hutter et al., ICML 2014, is the method).
    """
    space = {name: to_optuna(name, d) for name, d in config.tune.space.items()}
    study = optuna.create_study(direction="maximize")
    values = set()
    for trial in trials:
        score = score_of(trial)
        if score is None or set(trial.drawn) != set(space):
            continue
        values.add(score.robust)
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE,
                params=trial.drawn,
                distributions=space,
                value=score.robust,
            )
        )
    if len(study.trials) < FEWEST or len(values) < 2:
        return {}
    found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=seed))
    return {name: float(share) for name, share in found.items()}
