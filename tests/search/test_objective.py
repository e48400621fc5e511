"""The objective: worst cell, best epoch, passes; the Pareto front; what early stopping saved."""

import random

import pytest

from components.search.objective import (
    TrialRecord,
    pareto,
    saving,
    score_of,
    training_passes,
    worst_cell,
)


def row(epoch: int, rgb: float, skeleton: float, both: float, clean: float = 0.9) -> dict:
    return {
        "epoch": epoch, "val_clean_acc": clean, "val_robust_acc_rgb": rgb,
        "val_robust_acc_skeleton": skeleton, "val_robust_acc_both": both,
        "clips_per_s": 50.0, "train_seconds": 2.0, "steps": 5,
    }  # fmt: skip


def trial(*rows: dict, status: str = "completed") -> TrialRecord:
    by_epoch = {r["epoch"]: r for r in rows}
    return TrialRecord(0, "0000-x", {}, {}, "pgd_at", status=status, rows=by_epoch)  # type: ignore[arg-type]


def test_the_worst_cell_counts() -> None:
    assert worst_cell(row(1, 0.8, 0.6, 0.7)) == 0.6
    assert worst_cell({"val_robust_acc_rgb": 0.4}) == 0.4
    with pytest.raises(ValueError, match="no validation robust accuracy"):
        worst_cell({"val_clean_acc": 1.0})


def test_the_best_epoch_is_the_one_that_is_kept() -> None:
    score = score_of(trial(row(1, 0.5, 0.5, 0.3), row(2, 0.9, 0.9, 0.6), row(3, 0.9, 0.9, 0.2)))
    assert score is not None and (score.robust, score.epoch) == (0.6, 2)
    tie = score_of(trial(row(1, 1, 1, 0.6, clean=0.7), row(2, 1, 1, 0.6, clean=0.7)))
    assert tie is not None and tie.epoch == 1
    assert score_of(trial()) is None


@pytest.mark.parametrize(
    ("method", "a_clip"), [("natural", 2), ("pgd_at", 12), ("trades", 14), ("free", 10)]
)
def test_passes_of_an_epoch(method: str, a_clip: int) -> None:
    assert training_passes(row(1, 1, 1, 1), method) == 100 * a_clip


def test_the_front_holds_what_nothing_beats() -> None:
    points = [(0.5, 0.9, 10), (0.6, 0.8, 10), (0.5, 0.8, 10), (0.5, 0.8, 5), (0.6, 0.8, 10)]
    assert pareto(points) == [True, True, False, True, True]
    assert pareto([]) == []


def test_saving_counts_the_epochs_that_stopped_trials_did_not_run() -> None:
    full = trial(*(row(e, 1, 1, 1) for e in (1, 2, 3, 4)))
    stopped = trial(row(1, 0, 0, 0), status="stopped")
    found = saving([full, stopped], epochs=4)
    assert found["passes"] == 5 * 1200 and found["passes_without_asha"] == 8 * 1200
    assert found["saved"] == pytest.approx(3 / 8)
    assert saving([], epochs=4)["saved"] == 0


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_what_a_look_at_all_pairs_finds(seed: int) -> None:
    draw = random.Random(seed)
    points = [tuple(float(draw.randrange(6)) for _ in range(3)) for _ in range(200)]

    def beaten(p: tuple) -> bool:
        return any(q[0] >= p[0] and q[1] >= p[1] and q[2] <= p[2] and q != p for q in points)

    found = pareto(points)
    assert found == [not beaten(p) for p in points] and any(found) and not all(found)
