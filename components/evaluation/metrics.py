"""From per-clip verdicts to the figures of every table: shares with intervals, differences."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from components.errors import UserError

Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % score interval of a share (Wilson 1927), in [0, 1]; (0, 1) when n is 0.

    Unlike value +- 1.96 standard errors it stays honest at 0 % and 100 %.
    """
    if not 0 <= successes <= n:
        raise UserError(f"successes must lie in 0..n, got {successes} of {n}")
    if n == 0:
        return 0.0, 1.0
    interval = _binomial_test(successes, n).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def accuracy(correct: ArrayLike) -> dict[str, Any]:
    """`{"value", "low", "high", "n"}` of bool [n]; `value` is None when there is no clip."""
    verdicts = np.asarray(correct, dtype=bool)
    return accuracy_of(int(verdicts.sum()), verdicts.size)


def accuracy_of(successes: int, n: int) -> dict[str, Any]:
    """The same from counts."""
    low, high = wilson(successes, n)
    return {"value": successes / n if n else None, "low": low, "high": high, "n": n}


def paired_difference(
    a: ArrayLike, b: ArrayLike, *, seed: int = 0, draws: int = 2000
) -> dict[str, Any]:
    """Accuracy of model a minus model b on the same clips, with a paired bootstrap interval.

    a, b: bool [n], verdicts on the same clips in the same order. Clips are drawn with
    replacement, each with both verdicts, so what makes a clip hard for both cancels out.
    `p` is McNemar's exact two-sided p-value on the clips where the models differ.
    """
    left, right = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if left.shape != right.shape or left.ndim != 1:
        raise UserError(f"verdicts must be two equal rows, got {left.shape} and {right.shape}")
    n = left.size
    if n == 0:
        return {"value": None, "low": -1.0, "high": 1.0, "p": 1.0, "n": 0}
    only_a, only_b = int((left & ~right).sum()), int((right & ~left).sum())
    # A draw of n clips only matters through how many of each of the three kinds it holds.
    counts = np.random.default_rng(seed).multinomial(
        n, [only_a / n, only_b / n, 1 - (only_a + only_b) / n], size=draws
    )
    low, high = np.quantile((counts[:, 0] - counts[:, 1]) / n, [0.025, 0.975])
    return {
        "value": (only_a - only_b) / n,
        "low": float(low),
        "high": float(high),
        "p": mcnemar(only_a, only_b),
        "n": n,
    }


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value that both kinds of disagreement are equally likely."""
    total = only_a + only_b
    return float(_binomial_test(only_a, total).pvalue) if total else 1.0


def _binomial_test(successes: int, n: int) -> Any:
    from scipy.stats import binomtest  # most of a second, which workers that only train save

    return binomtest(successes, n)


def confusion(
    labels: Sequence[int] | NDArray[Any], predictions: Sequence[int] | NDArray[Any], classes: int
) -> list[list[int]]:
    """Counts [K, K]: rows are true labels, columns are predictions."""
    table = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(table, (np.asarray(labels, dtype=int), np.asarray(predictions, dtype=int)), 1)
    return [[int(v) for v in row] for row in table]
