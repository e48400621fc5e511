"""The gate looks at the right figures: each test fails on a break that once went unseen."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components.config.evaluate import RegisterSection
from components.evaluation.metrics import accuracy, paired_difference
from mlflow_tracking.gate import Evaluated, decide, raised_flags

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


def flagged(**statuses: str) -> list[dict[str, str]]:
    return [{"check": check, "status": status} for check, status in statuses.items()]


def told(candidate: Evaluated, champion: Evaluated | None, **limits: Any) -> list[tuple]:
    decision = decide(candidate, champion, RegisterSection(**limits), CLIPS)
    checks = [(check.name, check.passed, check.reason) for check in decision.checks]
    said = [reason for _, passed, reason in checks if not passed]
    assert decision.promote is (not said)
    assert decision.to_json() == {
        "promote": not said,
        "reasons": said or [reason for _, _, reason in checks],
        "checks": [dict(zip(("name", "passed", "reason"), check, strict=True)) for check in checks],
    }
    return checks


def test_every_condition_with_its_words() -> None:
    """In this order, whether or not they hold; the same text is registered and reported."""
    robust = {"rgb": 70, "skeleton": 60, "both": 50}
    assert told(evaluated(robust), None, min_clean_acc=0.9, min_robust_acc=0.5) == [
        ("coverage", True, "100 of 100 test clips evaluated"),
        ("flags", True, "no flag is up"),
        ("clean accuracy", True, "clean accuracy 0.900 (at least 0.900 asked for)"),
        (
            "worst-case robust accuracy",
            True,
            "worst-case robust accuracy 0.500 (at least 0.500 asked for)",
        ),
        ("champion", True, "there is no champion yet"),
    ]
    raised = flagged(
        random_output="fail", slopes="warn", black_box="fail", unbounded="too-few", a="warn"
    )
    candidate = evaluated(robust, flags=raised, worst={"rgb": {"value": None}}, clips=0)
    assert raised_flags(candidate.summary) == ["black_box", "random_output"]
    assert raised_flags(candidate.summary, "warn") == ["a", "slopes"] and raised_flags({}) == []
    nobody = Evaluated("the old one", {}, None)
    others = (
        " was evaluated with another threat model and shards, so the figures cannot be compared"
    )
    stated = {"threat_fingerprint": "t", "shards_fingerprint": "s"}
    assert told(candidate, nobody, replace=True) == [
        ("coverage", False, "not evaluated under attack on: skeleton, both"),
        (
            "flags",
            False,
            "gradient-masking flags: black_box, random_output; too few rightly classified clips "
            "for the gradient-masking checks unbounded (warnings: a, slopes)",
        ),
        ("clean accuracy", True, "clean accuracy 0.900 (at least 0.000 asked for)"),
        (
            "worst-case robust accuracy",
            False,
            "worst-case robust accuracy unknown (at least 0.000 asked for)",
        ),
        (
            "comparable",
            True,
            "the old one has no evaluation, so the figures cannot be compared; replaced as "
            "register.replace asks",
        ),
    ]
    last = told(evaluated(robust, **stated), evaluated(robust, **dict.fromkeys(stated, "other")))[
        -1
    ]
    hint = "; set register.replace=true once to make this model champion all the same"
    assert last == ("comparable", False, f"model{others}{hint}")


def test_each_cell_that_both_have_is_compared_by_clip() -> None:
    candidate = evaluated({"rgb": 70, "skeleton": 60, "both": 50}, right=88)
    champion = evaluated({"rgb": 75, "skeleton": 60, "both": 58})

    def words(what: str, ours: int, theirs: int) -> tuple:
        found = paired_difference(np.arange(CLIPS) < ours, np.arange(CLIPS) < theirs)
        value, low, high = (100 * found[key] for key in ("value", "low", "high"))
        reason = f"{what}: {value:+.1f} points against model (paired 95 % interval "
        return what, found["high"] >= 0, f"{reason}{low:+.1f} to {high:+.1f})"

    robust = "worst-case robust accuracy"
    cells = {"rgb": (70, 75), "skeleton": (60, 60), "both": (50, 58)}
    wanted = [words("clean accuracy", 88, 90)]
    wanted += [words(f"{robust} ({cell})", *counts) for cell, counts in cells.items()]
    assert told(candidate, champion)[4:] == wanted
    # What one of the two lacks cannot be compared.
    fewer = {"rgb": champion.summary["worst"]["rgb"]}
    lacking = evaluated({"rgb": 75, "skeleton": 60, "both": 58}, worst=fewer)
    assert told(candidate, lacking)[4:] == wanted[:2]
    # Without rows there is nothing to pair, nor with the rows of one alone.
    empty = candidate.records.slice(0, 0)
    unpaired = told(
        Evaluated("a", candidate.summary, empty), Evaluated("b", champion.summary, empty)
    )
    one_sided = told(candidate, Evaluated("b", champion.summary, None))
    other_sided = told(
        Evaluated("a", candidate.summary, None), Evaluated("b", champion.summary, empty)
    )
    assert unpaired == one_sided == other_sided
    assert all("(unpaired 95 %" in reason for _, _, reason in unpaired[4:])
    # A difference whose interval just reaches 0 does not speak against the candidate.
    same = evaluated({"rgb": 75, "skeleton": 60, "both": 58})
    assert all(passed for _, passed, _ in told(same, champion))
