"""Intervals and differences against published values and known limits."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.evaluation.metrics import (
    Z95,
    accuracy,
    confusion,
    mcnemar,
    paired_difference,
    wilson,
)


def test_wilson_known_values():
    # 0 of 10 and 81 of 263: textbook values (Newcombe 1998, table I, method 3).
    low, high = wilson(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    low, high = wilson(0, 20)
    assert low == 0.0 and round(high, 4) == 0.1611


@given(st.integers(0, 500), st.integers(0, 500))
def test_wilson_holds_the_share_and_mirrors(a, b):
    successes, n = min(a, b), max(a, b)
    low, high = wilson(successes, n)
    assert 0 <= low <= high <= 1
    if n:
        assert low <= successes / n <= high
        mirrored = wilson(n - successes, n)
        assert low == pytest.approx(1 - mirrored[1], abs=1e-12)


def test_wilson_refuses_impossible_counts():
    with pytest.raises(ValueError, match="5 of 4"):
        wilson(5, 4)


def test_accuracy_of_nothing_has_no_value_and_is_json():
    empty = accuracy([])
    assert empty == {"value": None, "low": 0.0, "high": 1.0, "n": 0}
    json.dumps(empty, allow_nan=False)


def test_paired_difference_uses_the_pairing():
    rng = np.random.default_rng(0)
    base = rng.random(400) < 0.6
    better = base | (rng.random(400) < 0.1)
    paired = paired_difference(better, base)
    shuffled = paired_difference(better, rng.permutation(base))
    assert paired["value"] == pytest.approx(better.mean() - base.mean())
    assert 0 < paired["low"] <= paired["value"] <= paired["high"]
    assert paired["high"] - paired["low"] < 0.5 * (shuffled["high"] - shuffled["low"])
    assert paired["p"] < 0.05
    assert paired_difference(better, base) == paired


def test_paired_difference_covers_zero_for_equal_models():
    same = np.array([True, False] * 20)
    result = paired_difference(same, same)
    assert (result["value"], result["low"], result["high"], result["p"]) == (0, 0, 0, 1)


def test_mcnemar_matches_the_binomial():
    for a, b in [(0, 0), (1, 0), (7, 3), (12, 12), (30, 11)]:
        n, least = a + b, min(a, b)
        tail = sum(math.comb(n, k) for k in range(least + 1)) / 2**n
        assert mcnemar(a, b) == pytest.approx(min(1.0, 2 * tail))


def test_confusion():
    labels, predictions = [0, 0, 1, 2], [0, 1, 1, 0]
    assert confusion(labels, predictions, 3) == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_the_quantile_of_all_intervals_leaves_out_one_in_twenty():
    assert math.erf(Z95 / math.sqrt(2)) == pytest.approx(0.95, abs=1e-12)
