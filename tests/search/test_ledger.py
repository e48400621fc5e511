"""The ledger: what a kill at any moment leaves behind is enough to go on."""

from pathlib import Path

import pytest

from components.search.budget import Budget
from components.search.ledger import Ledger


def row(epoch: int, robust: float = 0.5) -> dict:
    return {"epoch": epoch, "val_robust_acc_rgb": 0.9, "val_robust_acc_both": robust}


def test_everything_is_there_after_reading_it_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.begin_session()
    first = ledger.add_trial({"a": 1}, {"train.lr": 0.1}, "pgd_at", default=True)
    second = ledger.add_trial({"a": 2}, {"train.lr": 0.2}, "pgd_at")
    ledger.start(first.key)
    ledger.epoch(first.key, row(1))
    ledger.epoch(first.key, row(2))
    ledger.end(first.key, "completed")
    ledger.start(second.key)
    ledger.epoch(second.key, row(1))
    ledger.score_finalist(first.key, {"robust": {"value": 0.4}})

    again = Ledger(tmp_path)
    assert [t.key for t in again.ordered()] == [first.key, second.key]
    assert [t.key for t in again.finished()] == [first.key]
    one, two = again.ordered()
    assert one.default and one.values == {"train.lr": 0.1} and sorted(one.rows) == [1, 2]
    assert one.finalist == {"robust": {"value": 0.4}} and one.status == "completed"
    assert two.status == "open" and sorted(two.rows) == [1] and not two.over


@pytest.mark.parametrize("cut", [1, 10, 25])
def test_a_line_cut_short_by_a_kill_costs_that_event_alone(tmp_path: Path, cut: int) -> None:
    ledger = Ledger(tmp_path)
    trial = ledger.add_trial({}, {"train.lr": 0.1}, "pgd_at")
    ledger.epoch(trial.key, row(1))
    ledger.epoch(trial.key, row(2))
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole[:-cut])

    again = Ledger(tmp_path)
    left = [1, 2] if cut == 1 else [1]  # without its line end alone, the event is whole
    assert sorted(again.trials[trial.key].rows) == left
    again.epoch(trial.key, row(3))
    assert sorted(Ledger(tmp_path).trials[trial.key].rows) == [*left, 3]


def test_an_epoch_told_twice_counts_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    trial = ledger.add_trial({}, {}, "pgd_at")
    ledger.epoch(trial.key, row(1, 0.1))
    ledger.epoch(trial.key, row(1, 0.1))
    assert len(ledger.trials[trial.key].rows) == 1


def test_time_counts_while_something_runs_and_not_between_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("components.search.ledger.time.time", lambda: now)
    ledger = Ledger(tmp_path)
    ledger.begin_session()
    trial = ledger.add_trial({}, {}, "pgd_at")
    now += 10
    ledger.start(trial.key)
    now += 20
    ledger.epoch(trial.key, row(1))
    now += 5
    assert (ledger.wall_seconds, ledger.trial_seconds) == (35, 25)

    now += 10_000  # killed, and begun again a good while later
    again = Ledger(tmp_path)
    assert (again.wall_seconds, again.trial_seconds) == (30, 20)
    again.begin_session()
    again.start(trial.key)
    now += 7
    again.end(trial.key, "completed")
    now += 3
    assert (again.wall_seconds, again.trial_seconds) == (40, 27)

    budget = Budget(trials=9, max_hours=40 / 3600, max_device_hours=0, devices=2)
    assert "max_hours" in (budget.spent(again) or "")
    budget = Budget(trials=9, max_hours=0, max_device_hours=54 / 3600, devices=2)
    assert "max_device_hours" in (budget.spent(again) or "")
    assert Budget(trials=9, max_hours=1, max_device_hours=1, devices=2).spent(again) is None
    assert Budget(trials=9, max_hours=0, max_device_hours=0, devices=2).spent(again) is None
