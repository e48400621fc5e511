"""Proposals: order, no repeats, going on after a kill, learning, and all kinds of search."""

from collections.abc import Callable
from pathlib import Path

import pytest

from components.config import Config, apply_overrides
from components.search.ledger import Ledger, Trial
from components.search.proposals import Proposals

SPACE = {
    "train.attack.skeleton_eps": {"kind": "uniform", "low": 0.0, "high": 0.1},
    "model.amr.temperature": {"kind": "uniform", "low": 0.25, "high": 4.0, "log": True},
    "train.attack.steps": {"kind": "int", "low": 1, "high": 8},
}


def settings(**tune: object) -> Config:
    base = {"tune.space": SPACE, "tune.epochs": 2, "tune.trials": 12}
    return apply_overrides(Config(), {**base, **{f"tune.{k}": v for k, v in tune.items()}})


def robust(trial: Trial) -> float:
    """Best at skeleton_eps = 0.08; the other parameters hardly matter."""
    return 0.9 - 40 * (trial.values.get("train.attack.skeleton_eps", 0.05) - 0.08) ** 2


def finish(ledger: Ledger, proposals: Proposals, trial: Trial, worth: Callable = robust) -> None:
    ledger.start(trial.key)
    for epoch in (1, 2):
        value = worth(trial) * epoch / 2
        ledger.epoch(
            trial.key,
            {"epoch": epoch, "val_robust_acc_both": value, "val_clean_acc": 0.9,
             "clips_per_s": 1.0, "train_seconds": 1.0,
             "steps": trial.values.get("train.attack.steps", 5)},
        )  # fmt: skip
    ledger.end(trial.key, "completed")
    proposals.learn(trial)


def run(config: Config, folder: Path, *, kill_after: int = 10**6) -> Ledger:
    """A whole search, with a new process after every `kill_after` trials."""
    while True:
        ledger = Ledger(folder)
        proposals = Proposals(config, ledger)
        for _ in range(kill_after):
            trial = proposals.next()
            if trial is None:
                return ledger
            finish(ledger, proposals, trial)


@pytest.mark.parametrize("search", ["tpe", "random"])
def test_a_killed_search_proposes_what_an_undisturbed_one_does(tmp_path: Path, search: str) -> None:
    config = settings(search=search)
    whole = run(config, tmp_path / "whole")
    killed = run(config, tmp_path / "killed", kill_after=3)
    values = [t.values for t in whole.ordered()]
    assert values == [t.values for t in killed.ordered()]
    assert len(values) == 12 and len({str(v) for v in values}) == 12


def test_the_first_trial_is_the_defaults(tmp_path: Path) -> None:
    config = settings()
    first = Proposals(config, Ledger(tmp_path)).next()
    assert first is not None and first.default
    assert first.values == {
        "train.attack.skeleton_eps": 0.05,
        "model.amr.temperature": 1.0,
        "train.attack.steps": 5,
    }
    other = Proposals(settings(defaults_first=False), Ledger(tmp_path / "b")).next()
    assert other is not None and not other.default


def test_a_default_outside_the_space_runs_all_the_same(tmp_path: Path) -> None:
    config = apply_overrides(settings(), {"train.attack.skeleton_eps": 0.5})
    ledger = run(config, tmp_path)
    assert ledger.ordered()[0].values == {} and len(ledger.trials) == 12


def test_what_a_kill_left_open_comes_first_and_under_its_old_key(tmp_path: Path) -> None:
    config = settings()
    ledger = Ledger(tmp_path)
    proposals = Proposals(config, ledger)
    open_ones = [proposals.next(), proposals.next(), proposals.next()]
    assert all(open_ones)
    finish(ledger, proposals, open_ones[1])  # type: ignore[arg-type]

    again = Proposals(config, Ledger(tmp_path))
    keys = [t.key for t in (again.next(), again.next()) if t]
    assert keys == [open_ones[0].key, open_ones[2].key]  # type: ignore[union-attr]
    fresh = again.next()
    assert fresh is not None and fresh.number == 3


def test_raising_the_number_of_trials_goes_on(tmp_path: Path) -> None:
    run(settings(trials=4), tmp_path)
    ledger = run(settings(trials=7), tmp_path)
    assert [t.number for t in ledger.ordered()] == list(range(7))


def test_tpe_learns_and_random_does_not(tmp_path: Path) -> None:
    """Late TPE trials lie near the optimum; late random ones lie anywhere."""

    def late(search: str) -> float:
        config = settings(search=search, trials=40)
        ledger = run(config, tmp_path / search)
        return sum(robust(t) for t in ledger.ordered()[20:]) / 20

    assert late("tpe") > late("random") + 0.01


def test_multi_objective_trades_cost_too(tmp_path: Path) -> None:
    ledger = run(settings(multi_objective=True, trials=30), tmp_path)
    early = [t.values["train.attack.steps"] for t in ledger.ordered()[1:11]]
    late = [t.values["train.attack.steps"] for t in ledger.ordered()[20:]]
    assert sum(late) < sum(early)


def test_a_grid_is_walked_once_and_then_ends(tmp_path: Path) -> None:
    space = {
        "train.attack.steps": {"kind": "int", "low": 4, "high": 5},
        "model.fusion": {"kind": "choice", "values": ["amr", "mmtm", "concat"]},
    }
    config = settings(search="grid", space=space, trials=50)
    ledger = run(config, tmp_path, kill_after=2)
    seen = {(t.values["train.attack.steps"], t.values["model.fusion"]) for t in ledger.ordered()}
    assert len(seen) == 6 == len(ledger.trials)


def test_a_small_space_is_never_drawn_twice(tmp_path: Path) -> None:
    space = {"model.fusion": {"kind": "choice", "values": ["amr", "mmtm", "concat"]}}
    ledger = run(settings(space=space, trials=10), tmp_path)
    assert sorted(t.values["model.fusion"] for t in ledger.ordered()) == ["amr", "concat", "mmtm"]


def test_failed_trials_teach_nothing_and_are_not_run_again(tmp_path: Path) -> None:
    config = settings(trials=3)
    ledger = Ledger(tmp_path)
    proposals = Proposals(config, ledger)
    for _ in range(3):
        trial = proposals.next()
        assert trial is not None
        ledger.end(trial.key, "failed", "out of memory")
        proposals.learn(trial)
    assert Proposals(config, Ledger(tmp_path)).next() is None
