"""One answer to whether two evaluations may stand in one table, whoever asks."""

import inspect

import pytest

from components.evaluation.comparable import apart_from, clips_fingerprint, differences_in_terms
from components.reporting import read, train_eps
from mlflow_tracking import gate
from pipelines import evaluate

ATTACK = {"name": "pgd", "attack": "pgd", "parameters": {"steps": 20}}
ONE = {
    "recipe": "sample", "variant": "amr", "seed": 0, "suite": "quick", "clips": 26,
    "threat_fingerprint": "t", "shards_fingerprint": "s", "clips_fingerprint": "c",
    "attacks": [ATTACK],
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "terms"),
    [
        ({}, []),
        ({"variant": "late", "seed": 3, "checkpoint_sha256": "x"}, []),
        ({"recipe": "utd_mhad"}, ["recipe"]),
        ({"threat_fingerprint": "u"}, ["threat model"]),
        ({"shards_fingerprint": "r"}, ["shards"]),
        ({"clips": 20}, ["number of test clips"]),
        ({"clips": 20, "clips_fingerprint": "d"}, ["number of test clips"]),
        ({"clips_fingerprint": "d"}, ["set of test clips"]),
        ({"suite": "full"}, ["attack suite"]),
        ({"attacks": [{**ATTACK, "parameters": {"steps": 5}}]}, ["attack suite"]),
        ({"attacks": []}, ["attack suite"]),
        ({"attacks": [ATTACK, {"name": "attention", "needs": "weights"}]}, []),
        ({"recipe": "ntu60", "threat_fingerprint": "u"}, ["recipe", "threat model"]),
    ],
)
def test_what_keeps_two_evaluations_apart(changed, terms):
    other = {**ONE, **changed}
    assert differences_in_terms(ONE, other) == terms
    assert differences_in_terms(other, ONE) == terms


def test_an_evaluation_says_with_which_others_it_must_not_be_compared():
    beside = {
        "amr-s0": {**ONE, "threat_fingerprint": "u"},
        "amr-s1": ONE,
        "late-s0": ONE,
        "mmtm-s0": {**ONE, "threat_fingerprint": "u"},
        "fim-s0": {**ONE, "recipe": "ntu60"},
    }
    first, second = apart_from("amr-s0", beside)
    assert "another threat model than amr-s1, late-s0" in first and "dvc metrics" in first
    assert "another recipe and threat model than fim-s0" in second
    assert apart_from("late-s0", {"amr-s1": ONE, "late-s0": ONE}) == []


def test_sets_of_clips_have_no_order():
    assert clips_fingerprint(["a", "b"]) == clips_fingerprint(["b", "a"])
    assert clips_fingerprint(["a", "b"]) != clips_fingerprint(["a", "c"])


@pytest.mark.parametrize("asker", [read, train_eps, gate, evaluate])
def test_everybody_asks_the_same_function(asker):
    """Report (and with it seeds and results), curves, gate, and what `dvc metrics` reads."""
    source = inspect.getsource(asker)
    assert "components.evaluation.comparable import" in source
