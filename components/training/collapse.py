"""What a noisy validation score says: is this epoch to be kept, has the training attack failed?

Cheap attacks can be overfitted within one epoch: the network learns to blind the training attack,
training robustness rises, and accuracy under a multi-step attack falls to near zero (Wong et al.,
arXiv 2001.03994; Andriushchenko & Flammarion, arXiv 2007.02617). Robust overfitting is slower
(Rice et al., arXiv 2002.11569): there the best checkpoint by validation is the answer.
"""

import math

DROP = 0.5  # a collapse loses more than this share of the best robust accuracy ...
ERRORS = 3.0  # ... and more than this many standard errors of the difference
MAX_ROLLBACKS = 3


def within_noise(score: float, best: float, clips: int) -> bool:
    """Whether `score` lies less than one standard error of `best` below it, or above it.

    The rule of one standard error (Breiman et al. 1984, for pruning): the learning rate is
    annealed, so of epochs that `clips` clips cannot tell apart the latest is the one to keep.
    The highest of many noisy scores is an early epoch more often than a good one.
    """
    chance = min(max(best, 0.0), 1.0)
    return score >= best - math.sqrt(chance * (1.0 - chance) / max(clips, 1))


def collapsed(
    robust: float, best: float, clips: int, train_robust: float, train_best: float
) -> bool:
    """Whether this epoch's validation robust accuracy is a collapse.

    robust, best:             of this epoch and the best one, on `clips` validation clips
    train_robust, train_best: accuracy on the training attack's own examples, likewise

    The training attack must still look fine (at least 80 % of its best): where everything falls,
    the run diverges or recovers by itself, and a stronger attack would not help.
    """
    if clips == 0 or best <= 0.0:
        return False
    spread = math.sqrt((robust * (1 - robust) + best * (1 - best)) / clips)
    fell = best - robust
    return fell > DROP * best and fell > ERRORS * spread and train_robust >= 0.8 * train_best
