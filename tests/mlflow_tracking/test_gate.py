"""The gate: every condition alone keeps a model from becoming champion."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components.config.evaluate import RegisterSection
from components.evaluation.metrics import accuracy
from mlflow_tracking.gate import Evaluated, decide, verdicts

CELLS = ("rgb", "skeleton", "both")
TERMS = {"suite": "abc", "shards": "def"}
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
        **changes,
    }
    return Evaluated("model", summary, table if records else None, TERMS)


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


def test_figures_on_other_terms_are_not_compared() -> None:
    champion = Evaluated("old", evaluated().summary, None, {**TERMS, "suite": "other"})
    decision = ask(evaluated(), champion)
    assert not decision.promote
    assert "suite" in decision.reasons[0] and "register.replace" in decision.reasons[0]
    assert ask(evaluated(), champion, replace=True).promote
    assert not ask(evaluated(), champion, replace=True, min_clean_acc=0.9).promote


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
