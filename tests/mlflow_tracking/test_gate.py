"""The gate: every condition alone keeps a model from becoming champion."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components.config.evaluate import RegisterSection
from components.evaluation.metrics import accuracy
from components.evaluation.verdicts import verdicts
from mlflow_tracking.gate import Evaluated, decide

CELLS = ("rgb", "skeleton", "both")
TERMS = {
    "recipe": "sample",
    "threat_fingerprint": "8/255",
    "shards_fingerprint": "def",
    "clips_fingerprint": "0123",
    "suite": "quick",
    "attacks": [{"name": "pgd20", "parameters": {"steps": 20}, "needs": ""}],
}
CLIPS = 200
CHECKED = {"check": "random_output", "status": "pass"}


def evaluated(
    right: int = 150, robust: int = 80, *, records: bool = True, clips: int = CLIPS, **changes: Any
) -> Evaluated:
    """A model that is right on the first `right` clips and stands on the first `robust`."""
    clean = np.arange(clips) < right
    standing = np.arange(clips) < robust
    rows = [("clean", clean), *((cell, standing) for cell in CELLS)]
    table = pa.table(
        {
            "clip_id": [f"c{i}" for _, v in rows for i in range(len(v))],
            "cell": [cell for cell, v in rows for _ in v],
            "correct": [bool(x) for _, v in rows for x in v],
        }
    )
    summary = {
        "clips": clips,
        "clean_acc": accuracy(clean),
        "worst": {cell: accuracy(standing) for cell in CELLS},
        "flags": [CHECKED],
        **TERMS,
        **changes,
    }
    return Evaluated("model", summary, table if records else None)


def ask(candidate: Evaluated, champion: Evaluated | None = None, **limits: Any) -> Any:
    return decide(candidate, champion, RegisterSection(**limits), CLIPS)


def test_the_first_sound_model_becomes_champion() -> None:
    assert ask(evaluated()).promote


@pytest.mark.parametrize(
    ("candidate", "limits", "word"),
    [
        (evaluated(clips=CLIPS - 1), {}, "199 of 200 test clips"),
        (evaluated(worst={"rgb": accuracy([True])}), {}, "skeleton, both"),
        (
            evaluated(flags=[CHECKED, {"check": "zero_gradients", "status": "fail"}]),
            {},
            "zero_gradients",
        ),
        (
            evaluated(flags=[CHECKED, {"check": "unbounded", "status": "too-few"}]),
            {},
            "too few rightly classified clips for the gradient-masking checks unbounded",
        ),
        (evaluated(), {"min_clean_acc": 0.76}, "0.750 (at least 0.760"),
        (evaluated(), {"min_robust_acc": 0.41}, "0.400 (at least 0.410"),
    ],
)
def test_one_fault_is_enough(candidate: Evaluated, limits: dict[str, Any], word: str) -> None:
    decision = ask(candidate, **limits)
    assert not decision.promote
    assert len(decision.reasons) == 1
    assert word in decision.reasons[0]


def test_without_checks_there_is_no_champion() -> None:
    decision = ask(evaluated(flags=[]))
    assert decision.reasons == ["the gradient-masking checks were not run"]


def test_a_warning_is_told_and_does_not_block() -> None:
    decision = ask(evaluated(flags=[CHECKED, {"check": "slopes", "status": "warn"}]))
    assert decision.promote
    assert any("slopes" in reason for reason in decision.reasons)


@pytest.mark.parametrize("records", [True, False])
def test_worse_beyond_the_interval_keeps_the_champion(records: bool) -> None:
    champion = evaluated(robust=120, records=records)
    decision = ask(evaluated(robust=60, records=records), champion)
    assert not decision.promote
    assert len(decision.reasons) == len(CELLS)
    assert ("paired" if records else "unpaired") in decision.reasons[0]


def test_worse_within_the_interval_may_pass() -> None:
    assert ask(evaluated(right=148, records=False), evaluated(right=150, records=False)).promote


def test_the_paired_interval_is_the_sharper_one() -> None:
    better, worse = 150, 142  # 4 points on 200 clips: lost among two Wilson intervals
    assert not ask(evaluated(right=worse), evaluated(right=better)).promote
    assert ask(evaluated(right=worse, records=False), evaluated(right=better)).promote


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"suite": "full"}, "attack suite"),
        ({"attacks": [{**TERMS["attacks"][0], "parameters": {"steps": 5}}]}, "attack suite"),
        ({"attacks": []}, "attack suite"),
        ({"threat_fingerprint": "1/255"}, "threat model"),
        ({"shards_fingerprint": "other"}, "shards"),
        ({"clips_fingerprint": "4567"}, "set of test clips"),
        ({"recipe": "ntu60"}, "recipe"),
    ],
)
def test_figures_on_other_terms_are_not_compared(changes: dict[str, Any], words: str) -> None:
    champion = evaluated(**changes)
    decision = ask(evaluated(), champion)
    assert not decision.promote and len(decision.reasons) == 1
    assert f"another {words}" in decision.reasons[0]
    assert "register.replace" in decision.reasons[0]
    assert ask(evaluated(), champion, replace=True).promote
    assert not ask(evaluated(), champion, replace=True, min_clean_acc=0.9).promote


def test_attacks_that_one_model_has_no_part_for_keep_nothing_apart() -> None:
    pushed = {"name": "attention_touched", "parameters": {"steps": 10}, "needs": "weights"}
    champion = evaluated(attacks=[*TERMS["attacks"], pushed])
    assert ask(evaluated(), champion).promote
    assert ask(champion, evaluated()).promote


def test_a_champion_without_an_evaluation_is_replaced_on_request_alone() -> None:
    champion = Evaluated("champion (version 3)", {}, None)
    decision = ask(evaluated(), champion)
    assert not decision.promote and "has no evaluation" in decision.reasons[0]
    assert ask(evaluated(), champion, replace=True).promote


def test_both_counts_what_a_single_modality_broke() -> None:
    table = pa.table(
        {
            "clip_id": ["a", "b", "a", "b"],
            "cell": ["clean", "clean", "rgb", "both"],
            "correct": [True, True, False, True],
        }
    )
    assert verdicts(table, "both") == {"a": False, "b": True}
    assert verdicts(table, "skeleton") == {"a": True, "b": True}
