"""The gate looks at the right figures: each test fails on a break that once went unseen."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components.config.evaluate import RegisterSection
from components.evaluation.metrics import accuracy
from mlflow_tracking.gate import Evaluated, decide

CELLS = ("rgb", "skeleton", "both")
CLIPS = 100


def evaluated(robust: dict[str, int], *, right: int = 90, **changes: Any) -> Evaluated:
    """Right on the first `right` clips, robust on the first `robust[cell]` of each cell."""
    verdicts = {"clean": np.arange(CLIPS) < right}
    verdicts |= {cell: np.arange(CLIPS) < robust[cell] for cell in CELLS}
    table = pa.table(
        {
            "clip_id": [f"c{i}" for _ in verdicts for i in range(CLIPS)],
            "cell": [cell for cell in verdicts for _ in range(CLIPS)],
            "correct": [bool(x) for row in verdicts.values() for x in row],
        }
    )
    summary = {
        "clips": CLIPS,
        "clean_acc": accuracy(verdicts["clean"]),
        "worst": {cell: accuracy(verdicts[cell]) for cell in CELLS},
        "flags": [{"check": "random_output", "status": "pass"}],
        **changes,
    }
    return Evaluated("model", summary, table)


@pytest.mark.parametrize("worst", CELLS)
def test_the_threshold_holds_in_the_worst_cell(worst: str) -> None:
    robust = dict.fromkeys(CELLS, 80) | {worst: 40}
    for least, promoted in ((0.40, True), (0.41, False), (0.60, False)):
        limits = RegisterSection(min_robust_acc=least)
        assert decide(evaluated(robust), None, limits, CLIPS).promote is promoted


@pytest.mark.parametrize("worse", CELLS)
def test_losing_one_cell_keeps_the_champion(worse: str) -> None:
    champion = evaluated(dict.fromkeys(CELLS, 60))
    robust = dict.fromkeys(CELLS, 70) | {worse: 30}
    decision = decide(evaluated(robust), champion, RegisterSection(), CLIPS)
    assert not decision.promote
    # What breaks a clip in one modality breaks it in both.
    lost = {"both"} | {worse}
    assert len(decision.reasons) == len(lost)
    assert all(any(f"({cell})" in reason for reason in decision.reasons) for cell in lost)


def test_a_better_model_takes_the_champion_s_place() -> None:
    champion = evaluated(dict.fromkeys(CELLS, 30), right=70)
    candidate = evaluated(dict.fromkeys(CELLS, 60), right=90)
    assert decide(candidate, champion, RegisterSection(), CLIPS).promote
    assert not decide(champion, candidate, RegisterSection(), CLIPS).promote


def test_without_records_the_interval_is_newcombe_s() -> None:
    """56 of 70 against 48 of 80: 0.0524 to 0.3339 (Newcombe 1998, table II, method 10, a)."""
    figures = []
    for right, n in ((56, 70), (48, 80)):
        clean = accuracy(np.arange(n) < right)
        worst = dict.fromkeys(CELLS, clean)
        figures.append(evaluated(dict.fromkeys(CELLS, 50), clean_acc=clean, worst=worst))
    unpaired = [Evaluated("m", e.summary, None) for e in figures]
    reasons = decide(unpaired[0], unpaired[1], RegisterSection(), CLIPS).reasons
    assert any("+20.0 points" in r and "+5.2 to +33.4" in r for r in reasons), reasons
    reasons = decide(unpaired[1], unpaired[0], RegisterSection(), CLIPS).reasons
    assert any("-20.0 points" in r and "-33.4 to -5.2" in r for r in reasons), reasons


def test_a_paired_comparison_needs_the_same_clips() -> None:
    champion = evaluated(dict.fromkeys(CELLS, 60))
    table = champion.records
    other = table.set_column(
        0, "clip_id", pa.array([f"x{name.as_py()}" for name in table["clip_id"]])
    )
    decision = decide(
        evaluated(dict.fromkeys(CELLS, 60)),
        Evaluated("old", champion.summary, other),
        RegisterSection(),
        CLIPS,
    )
    assert decision.promote and any("unpaired" in reason for reason in decision.reasons)


def test_nothing_is_promoted_while_the_size_of_the_test_split_is_unknown() -> None:
    decision = decide(evaluated(dict.fromkeys(CELLS, 80)), None, RegisterSection(), None)
    assert not decision.promote
    assert any("size of the test split is not known" in reason for reason in decision.reasons)
