"""What a search leaves behind: winner, tables, summary, importances, pictures."""

import csv
import json
import time
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pyarrow as pa
import pytest
import yaml
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from components.config import Config, apply_overrides
from components.search import output, plots
from components.search.study import Search, identity

SPACE = {
    "train.attack.skeleton_eps": {"kind": "uniform", "low": 0.0, "high": 0.1},
    "model.fusion": {"kind": "choice", "values": ["amr", "mmtm"]},
    "model.fusion_stages": {"kind": "choice", "values": [[], [-1]]},
}


def accuracy(value: float) -> dict:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 50}


@pytest.fixture
def config() -> Config:
    changes = {"tune.space": SPACE, "tune.epochs": 2, "tune.trials": 8, "train.val_clips": 0}
    return apply_overrides(Config(), changes)


@pytest.fixture
def search(tmp_path: Path, config: Config) -> Search:
    """8 trials: robust accuracy is 5 times skeleton_eps; number 7 was stopped, 6 has failed."""
    made = Search(config, tmp_path / "search")
    made.begin_session()
    for i in range(8):
        drawn = {
            "train.attack.skeleton_eps": 0.01 * (i + 1),
            "model.fusion": "amr" if i % 2 else "mmtm",
            "model.fusion_stages": "[-1]" if i % 3 else "[]",
        }
        made.study.enqueue_trial(drawn, user_attrs={"default": i == 0})
        trial = made.next()
        assert trial is not None and trial.drawn == drawn
        if i == 6:
            made.end(trial.key, "failed", "loss is not finite")
            continue
        for epoch in (1, 2)[: 1 if i == 7 else 2]:
            made.epoch(
                trial.key,
                {"epoch": epoch, "val_robust_acc_both": 0.05 * (i + 1), "val_clean_acc": 0.8,
                 "clips_per_s": 10.0, "train_seconds": 1.0, "seconds": 1.5, "steps": 5,
                 "finished_at": 1000.0 + epoch},
            )  # fmt: skip
        made.end(trial.key, "stopped" if i == 7 else "completed")
    return made


def test_the_second_rung_decides_and_the_defaults_are_in_it(
    config: Config, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = search.records()
    chosen = output.finalists(trials, 2)
    assert [t.number for t in chosen] == [5, 4, 0]
    best = output.winner(config, trials)
    assert best is not None and best.number == 5  # by the proxy, and no stopped trial
    for number, robust in ((5, 0.10), (4, 0.20), (0, 0.15)):
        key = trials[number].key
        scores = {"robust": accuracy(robust), "clean": accuracy(0.8)}
        search.score_finalist(key, {"suite": "thin", "limit": 0, **scores})
    best = output.winner(config, search.records())
    assert best is not None and best.number == 4
    other = apply_overrides(config, {"train.val_clips": 24})
    best = output.winner(other, search.records())
    assert best is not None and best.number == 5  # scores on other clips do not count
    monkeypatch.setattr(output, "FINALIST_SUITE", "quick")
    best = output.winner(config, search.records())
    assert best is not None and best.number == 5  # nor do those of another suite


def test_all_files_say_the_same(tmp_path: Path, config: Config, search: Search) -> None:
    body = output.write(tmp_path, config, search, "8 trials are done")
    best = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert best == body["best"] == search.records()[5].values
    apply_overrides(config, best)
    with pa.ipc.open_file(str(tmp_path / "trials.arrow")) as file:
        table = file.read_all()
    with (tmp_path / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert table.num_rows == len(rows) == 8
    assert [r["winner"] for r in rows].index("True") == 5
    assert table["status"].to_pylist().count("completed") == 6
    assert table["train.attack.skeleton_eps"][2].as_py() == pytest.approx(0.03)
    assert table["model.fusion_stages"].to_pylist()[:2] == ["[]", "[-1]"]
    assert table["error"][6].as_py() == "loss is not finite"
    assert table["robust_acc"][6].as_py() is None
    said = json.loads((tmp_path / "tune.json").read_text())
    assert said["by_status"] == {"completed": 6, "failed": 1, "stopped": 1}
    assert said["val_robust_acc"] == pytest.approx(0.3) and said["winner_is_default"] is False
    assert said["saved"] == pytest.approx(1 / 14)


def test_a_search_that_is_switched_off_writes_every_file(tmp_path: Path, config: Config) -> None:
    output.write_disabled(tmp_path, config)
    plots.draw(tmp_path, config, [])
    assert yaml.safe_load((tmp_path / "best.yaml").read_text()) == {}
    with pa.ipc.open_file(str(tmp_path / "trials.arrow")) as file:
        assert file.read_all().num_rows == 0
    header = (tmp_path / "trials.csv").read_text().splitlines()
    assert len(header) == 1 and "robust_acc" in header[0]


def test_the_parameter_that_decides_is_the_most_important(config: Config, search: Search) -> None:
    study = plots.scored_study(config, search.records())
    assert len(study.trials) == 7  # the stopped one too, with the best that it had reached
    shares = get_param_importances(
        study, evaluator=FanovaImportanceEvaluator(seed=0), target=lambda t: t.values[0]
    )
    assert next(iter(shares)) == "train.attack.skeleton_eps"


def test_the_front_of_the_picture_is_that_of_the_table(config: Config, search: Search) -> None:
    trials = search.records()
    table = output.table(config, trials).to_pylist()
    front = {t.values[0] for t in plots.scored_study(config, trials).best_trials}
    assert front == {row["robust_acc"] for row in table if row["pareto"]}


@pytest.mark.parametrize("count", [0, 1, 3, 8])
def test_the_pictures_are_drawn(tmp_path: Path, config: Config, search: Search, count) -> None:
    paths = plots.draw(tmp_path, config, search.records()[:count])
    assert [p.name for p in paths] == ["pareto.png", "importances.png", "parallel.png"]
    for path in paths:
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size > 2000
    assert not plt.get_fignums()


def test_a_trial_s_file_has_all_that_a_reader_needs(tmp_path: Path, search: Search) -> None:
    running = search.records()[1]
    for trial in search.records():
        output.write_trial(tmp_path, trial)
    said = json.loads((tmp_path / f"{running.key}.json").read_text())
    assert said["number"] == 1 and said["status"] == "completed" and not said["default"]
    assert said["values"] == running.values
    assert [row["epoch"] for row in said["rows"]] == [1, 2]
    assert [row["finished_at"] for row in said["rows"]] == [1001.0, 1002.0]
    assert abs(said["started_at"] - time.time()) < 600 and said["ended_at"] >= said["started_at"]
    failed = json.loads((tmp_path / f"{search.records()[6].key}.json").read_text())
    assert (failed["status"], failed["error"]) == ("failed", "loss is not finite")
    going_on = replace(running, status="open")
    output.write_trial(tmp_path, going_on, running=True)
    assert json.loads((tmp_path / f"{running.key}.json").read_text())["status"] == "running"
    output.write_trial(tmp_path, going_on)
    assert json.loads((tmp_path / f"{running.key}.json").read_text())["status"] == "open"


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"tune.trials": 99}, True),
        ({"tune.max_hours": 2.0}, True),
        ({"tune.finalists": 5}, True),
        ({"train.epochs": 99}, True),
        ({"paths.artifacts": "/elsewhere"}, True),
        ({"tune.epochs": 5}, False),
        ({"train.val_steps": 9}, False),
        ({"train.val_clips": 9}, False),
        ({"threat.rgb.eps": 0.1}, False),
        ({"train.lr": 0.1}, False),
        ({"data.val_subjects": [1]}, False),
        ({"tune.search": "random"}, False),
        ({"seed": 1}, False),
    ],
)
def test_which_changes_begin_a_new_search(config: Config, changes: dict, same: bool) -> None:
    changed = apply_overrides(config, changes)
    assert (identity(changed, "data") == identity(config, "data")) is same
    assert identity(config, "other clips") != identity(config, "data")
