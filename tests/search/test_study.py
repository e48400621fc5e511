"""The study: order, no repeats, going on after a kill, learning, and all kinds of search."""

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from components.config import Config, apply_overrides
from components.search.objective import TrialRecord
from components.search.study import Search

SPACE = {
    "train.attack.skeleton_eps": {"kind": "uniform", "low": 0.0, "high": 0.1},
    "model.amr.distil": {"kind": "uniform", "low": 0.25, "high": 4.0, "log": True},
    "train.attack.steps": {"kind": "int", "low": 1, "high": 8},
}
CHOICES = {"model.fusion": {"kind": "choice", "values": ["amr", "mmtm", "concat"]}}


def settings(**tune: object) -> Config:
    base = {"tune.space": SPACE, "tune.epochs": 2, "tune.trials": 12}
    return apply_overrides(Config(), {**base, **{f"tune.{k}": v for k, v in tune.items()}})


def robust(trial: TrialRecord) -> float:
    """Best at skeleton_eps = 0.08; the other parameters hardly matter."""
    return 0.9 - 40 * (trial.values.get("train.attack.skeleton_eps", 0.05) - 0.08) ** 2


def row(epoch: int, value: float = 0.5) -> dict:
    return {
        "epoch": epoch, "val_robust_acc_both": value, "val_clean_acc": 0.9,
        "clips_per_s": 1.0, "train_seconds": 1.0, "seconds": 2.0, "steps": 5,
    }  # fmt: skip


def finish(search: Search, trial: TrialRecord, worth: Callable = robust) -> None:
    for epoch in (1, 2):
        search.epoch(trial.key, row(epoch, worth(trial) * epoch / 2))
    search.end(trial.key, "completed")


def run(config: Config, folder: Path, *, kill_after: int = 10**6) -> list[TrialRecord]:
    """A whole search, with a new process after every `kill_after` trials."""
    while True:
        search = Search(config, folder)
        for _ in range(kill_after):
            trial = search.next()
            if trial is None:
                return search.records()
            finish(search, trial)


@pytest.mark.parametrize("kind", ["tpe", "random"])
@pytest.mark.parametrize("kill_after", [1, 3])
def test_a_killed_search_draws_what_an_undisturbed_one_does(
    tmp_path: Path, kind: str, kill_after: int
) -> None:
    """One trial at a time, so nothing depends on which of two ends first."""
    config = settings(search=kind)
    whole = [t.values for t in run(config, tmp_path / "whole")]
    assert whole == [t.values for t in run(config, tmp_path / "killed", kill_after=kill_after)]
    assert len(whole) == 12 and len({str(v) for v in whole}) == 12
    other = [t.values for t in run(apply_overrides(config, {"seed": 1}), tmp_path / "seed1")]
    assert whole[0] == other[0] and whole[1] != other[1]


def test_the_first_trial_is_the_defaults(tmp_path: Path) -> None:
    first = Search(settings(), tmp_path).next()
    assert first is not None and first.default
    assert first.values == {
        "train.attack.skeleton_eps": 0.05,
        "model.amr.distil": 1.0,
        "train.attack.steps": Config().train.attack.steps,
    }


@pytest.mark.parametrize("kill_after", [1, 100])
def test_defaults_outside_the_space_run_all_the_same(tmp_path: Path, kill_after: int) -> None:
    config = apply_overrides(settings(), {"train.attack.skeleton_eps": 0.5})
    trials = run(config, tmp_path, kill_after=kill_after)
    assert trials[0].values == {} and len(trials) == 12
    assert [t.default for t in trials] == [True] + 11 * [False]


def test_what_a_kill_left_running_comes_first_and_as_it_was(tmp_path: Path) -> None:
    config = settings()
    search = Search(config, tmp_path)
    before = [search.next(), search.next(), search.next()]
    assert all(before)
    finish(search, before[1])  # type: ignore[arg-type]
    search.epoch(before[2].key, row(1, 0.4))  # type: ignore[union-attr]

    again = Search(config, tmp_path)
    first, second, fresh = again.next(), again.next(), again.next()
    assert first == before[0]
    assert second is not None and second.key == before[2].key  # type: ignore[union-attr]
    assert second.values == before[2].values and sorted(second.rows) == [1]  # type: ignore[union-attr]
    assert fresh is not None and fresh.number == 3
    again.epoch(second.key, row(2, 0.6))
    again.end(second.key, "completed")
    ended = Search(config, tmp_path).record(second.key)
    assert ended.status == "completed" and sorted(ended.rows) == [1, 2]


def test_a_kill_while_a_trial_is_drawn_costs_nothing(tmp_path: Path, monkeypatch) -> None:
    """Parameters are stored one by one, then the settings; killed in between, drawing goes on."""
    config = settings()
    whole = run(config, tmp_path / "whole")
    search = Search(config, tmp_path / "killed")
    finish(search, search.next())  # type: ignore[arg-type]
    half = search._ask()
    assert half is not None
    half.suggest_float("train.attack.skeleton_eps", 0.0, 0.1)
    first = Search(config, tmp_path / "killed").next()
    assert first is not None and first.number == 1
    name = "train.attack.skeleton_eps"
    assert first.values[name] == half.params[name] == whole[1].values[name]
    killed = run(config, tmp_path / "killed")
    assert len(killed) == 12 and all(set(t.values) == set(SPACE) for t in killed)


def test_raising_the_number_of_trials_goes_on(tmp_path: Path) -> None:
    run(settings(trials=4), tmp_path)
    assert [t.number for t in run(settings(trials=7), tmp_path)] == list(range(7))


def test_tpe_learns_and_random_does_not(tmp_path: Path) -> None:
    """Late TPE trials lie near the optimum; late random ones lie anywhere."""

    def late(kind: str) -> float:
        trials = run(settings(search=kind, trials=40), tmp_path / kind)
        return sum(robust(t) for t in trials[20:]) / 20

    assert late("tpe") > late("random") + 0.01


@pytest.mark.parametrize(("trials", "at_random"), [(4, 3), (20, 5), (200, 10)])
def test_a_quarter_of_the_trials_is_drawn_at_random_first(
    tmp_path: Path, monkeypatch, trials: int, at_random: int
) -> None:
    """But at least three and at most ten."""
    asked = []
    tpe = optuna.samplers.TPESampler

    def noted(**options: object) -> optuna.samplers.BaseSampler:
        asked.append(options)
        return tpe(**options)

    monkeypatch.setattr(optuna.samplers, "TPESampler", noted)
    search = Search(settings(trials=trials), tmp_path)
    for _ in range(2):  # the first are the defaults
        search.next()
    assert {options["n_startup_trials"] for options in asked if options} == {at_random}


def test_tpe_learns_from_stopped_trials_too(tmp_path: Path) -> None:
    """Two thirds end after one epoch, as under ASHA, with their rung's score known."""
    config = settings(trials=40)
    search = Search(config, tmp_path)
    while (trial := search.next()) is not None:
        if trial.number % 3:
            search.epoch(trial.key, row(1, robust(trial)))
            search.end(trial.key, "stopped")
        else:
            finish(search, trial)
    trials = search.records()
    stopped = [t for t in search.study.trials if t.state == TrialState.PRUNED]
    assert len(stopped) == 26 and all(t.intermediate_values for t in stopped)
    assert sum(map(robust, trials[20:])) > sum(map(robust, trials[1:21]))


def test_a_grid_is_walked_once_and_then_ends(tmp_path: Path) -> None:
    space = {"train.attack.steps": {"kind": "int", "low": 2, "high": 3}, **CHOICES}
    trials = run(settings(search="grid", space=space, trials=50), tmp_path, kill_after=2)
    seen = {(t.values["train.attack.steps"], t.values["model.fusion"]) for t in trials}
    assert len(seen) == 6 == len(trials)
    assert trials[0].default


def test_a_small_space_is_never_drawn_twice(tmp_path: Path) -> None:
    config = settings(space=CHOICES, trials=10)
    for _ in range(2):  # the second time there is nothing left to do
        trials = run(config, tmp_path)
        assert sorted(t.values["model.fusion"] for t in trials) == ["amr", "concat", "mmtm"]


def test_draws_that_make_no_valid_settings_are_left_out(tmp_path: Path) -> None:
    """TRADES refuses early stopping of the attack: a quarter of this space."""
    space = {
        "train.method": {"kind": "choice", "values": ["pgd_at", "trades"]},
        "train.attack.early_stop": {"kind": "choice", "values": [True, False]},
    }
    trials = run(settings(space=space, trials=10), tmp_path)
    pairs = {(t.values["train.method"], t.values["train.attack.early_stop"]) for t in trials}
    assert len(trials) == len(pairs) == 3 and ("trades", True) not in pairs


def test_the_sampler_learns_the_best_epoch_which_is_the_one_kept(tmp_path: Path) -> None:
    search = Search(settings(), tmp_path)
    trial = search.next()
    assert trial is not None
    search.epoch(trial.key, row(1, 0.6))
    search.epoch(trial.key, row(2, 0.2))
    search.end(trial.key, "completed")
    assert search.study.trials[0].value == 0.6 == search.study.best_value


def test_failed_trials_teach_nothing_and_are_not_run_again(tmp_path: Path) -> None:
    config = settings(trials=3)
    search = Search(config, tmp_path)
    for _ in range(3):
        trial = search.next()
        assert trial is not None
        search.end(trial.key, "failed", "out of memory")
    again = Search(config, tmp_path)
    assert again.next() is None
    assert [(t.status, t.error) for t in again.records()] == 3 * [("failed", "out of memory")]


def test_an_epoch_reported_twice_counts_once(tmp_path: Path) -> None:
    search = Search(settings(), tmp_path)
    trial = search.next()
    assert trial is not None
    search.epoch(trial.key, row(1, 0.1))
    search.epoch(trial.key, row(1, 0.9))
    assert search.record(trial.key).rows == {1: row(1, 0.1)}


def test_finalists_keep_their_accuracies(tmp_path: Path) -> None:
    search = Search(settings(), tmp_path)
    trial = search.next()
    assert trial is not None
    finish(search, trial)
    search.score_finalist(trial.key, {"robust": {"value": 0.4}})
    assert Search(settings(), tmp_path).record(trial.key).finalist == {"robust": {"value": 0.4}}


@pytest.mark.parametrize("cut", [1, 10, 25])
def test_a_line_cut_short_by_a_kill_costs_that_line_alone(tmp_path: Path, cut: int) -> None:
    search = Search(settings(), tmp_path)
    trial = search.next()
    assert trial is not None
    search.epoch(trial.key, row(1))
    search.epoch(trial.key, row(2))
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-cut])

    again = Search(settings(), tmp_path)
    assert again.next() is not None
    assert sorted(again.record(trial.key).rows) == [1]
    for epoch in (2, 3):
        again.epoch(trial.key, row(epoch))
    assert sorted(Search(settings(), tmp_path).record(trial.key).rows) == [1, 2, 3]


def test_the_lock_of_a_killed_process_is_no_obstacle(tmp_path: Path, monkeypatch) -> None:
    """Optuna's own lock file outlives a SIGKILL; waiting for it would take 30 seconds."""
    Search(settings(), tmp_path).next()
    (tmp_path / "journal.jsonl.lock").touch()

    def waited(*_: object) -> None:
        raise AssertionError("waits for a lock that nobody holds")

    monkeypatch.setattr("time.sleep", waited)
    assert Search(settings(), tmp_path).next() is not None


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More operations than the hundred after which other backends store a pickled snapshot."""

    def pickled(*_: object) -> None:
        raise AssertionError("pickle")

    monkeypatch.setattr("pickle.loads", pickled)
    monkeypatch.setattr("pickle.dumps", pickled)
    run(settings(), tmp_path)
    assert len((tmp_path / "journal.jsonl").read_text().splitlines()) > 100
    assert len(Search(settings(), tmp_path).records()) == 12


def test_the_study_is_open_to_optunas_own_tools(tmp_path: Path) -> None:
    run(settings(trials=3), tmp_path)
    path = str(tmp_path / "journal.jsonl")
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(path))
    study = optuna.load_study(study_name=tmp_path.name, storage=storage)
    assert len(study.trials) == 3 and set(study.best_params) == set(SPACE)


def test_time_counts_while_a_session_runs_and_not_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("components.search.study.time.time", lambda: now)
    search = Search(settings(), tmp_path)
    search.begin_session()
    trial = search.next()
    assert trial is not None
    now += 30
    search.epoch(trial.key, row(1))
    now += 5
    assert search.wall_seconds == 35

    now += 10_000  # killed, and begun again a good while later
    again = Search(settings(), tmp_path)
    assert again.wall_seconds == 30
    again.begin_session()
    assert again.next() is not None
    now += 10
    assert again.wall_seconds == 40

    def budget(seconds: float) -> str | None:
        again.config = settings(max_hours=seconds / 3600)
        return again.out_of_time()

    assert budget(0) is None and budget(40.005) is None
    assert "max_hours" in (budget(40) or "")
    third = Search(settings(max_hours=29 / 3600), tmp_path)
    assert third.out_of_time() is not None  # of the sessions before alone
