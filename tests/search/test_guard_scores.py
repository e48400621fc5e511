"""Scores, tables and pictures of a search, and what its study keeps, to the last number."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import optuna
import pyarrow as pa
import pytest

from components.config import Config, apply_overrides
from components.search import output, plots, study
from components.search.objective import TrialRecord, saving, score_of, training_passes
from components.search.study import Search, digest, identity


def config_with(space: dict, **others: object) -> Config:
    return apply_overrides(Config(), {"tune.space": space, **others})


def row(epoch: int, robust: float = 0.5, clean: float = 0.9, **more: float) -> dict:
    return {
        "epoch": epoch, "val_clean_acc": clean, "val_robust_acc_both": robust, "clips_per_s": 10.0,
        "train_seconds": 3.0, "seconds": 4.0, "steps": 5, **more,
    }  # fmt: skip


def trial(number: int, *rows: dict, status: str = "completed", **more: object) -> TrialRecord:
    by_epoch = {r["epoch"]: r for r in rows}
    words = {"key": f"k{number}", "drawn": {}, "values": {}, "method": "pgd_at", **more}
    return TrialRecord(number, status=status, rows=by_epoch, **words)  # type: ignore[arg-type]


def test_what_a_score_is_made_of() -> None:
    one = trial(0, row(1, 0.5, 0.7), row(2, 0.5, 0.8), row(3, 0.5, 0.8), row(4, 0.4, 0.9))
    assert score_of(one) == score(0.5, 0.8, 4 * 12 * 30.0, 2)
    assert one.seconds == 16.0 and trial(1).seconds == 0.0
    free = trial(2, row(1, seconds=1.5), {k: v for k, v in row(2).items() if k != "seconds"})
    assert free.seconds == 1.5
    assert [trial(0, status=s).over for s in ("open", "completed", "stopped", "failed")] == [
        False, True, True, True,
    ]  # fmt: skip
    for method, a_clip in (("mart", 14), ("trades", 14), ("pgd_at", 12), ("free", 10)):
        assert training_passes(row(1), method) == 30 * a_clip
    found = saving([trial(0), trial(1, row(1), row(2), status="stopped"), trial(2, row(1))], 6)
    assert found == {
        "passes": 3 * 360.0, "passes_without_asha": 7 * 360.0, "saved": pytest.approx(4 / 7),
    }  # fmt: skip


def score(*words: float) -> object:
    return type(score_of(trial(0, row(1))))(*words)


@pytest.mark.parametrize(
    ("robust", "enough"),
    [((0.1, 0.2, 0.3), False), ((0.1, 0.2, 0.3, 0.4), True), ((0.3,) * 4, False)],
)
def test_the_pictures_are_asked_for_with_these_words(tmp_path: Path, monkeypatch, robust, enough):
    """A share of variance is shown from four trials on, and only if their scores differ."""
    asked = {}
    for name in ("pareto_front", "param_importances", "parallel_coordinate"):
        monkeypatch.setattr(
            plots, f"plot_{name}", lambda made, name=name, **w: asked.update({name: (made, w)})
        )
    space = {"train.ema": {"kind": "uniform", "low": 0.0, "high": 0.9}}
    trials = [
        trial(9), trial(8, row(1), drawn={"train.lr": 0.1}),  # no score; of another space
        *(trial(i, row(1, r, 0.8), drawn={"train.ema": 0.1}) for i, r in enumerate(robust)),
    ]  # fmt: skip
    monkeypatch.setattr(plots, "FanovaImportanceEvaluator", lambda seed: ("fanova", seed))
    matplotlib.use("pdf")
    paths = plots.draw(tmp_path, config_with(space, seed=5), trials)
    assert all(path.is_file() for path in paths)
    assert matplotlib.get_backend().lower() == "agg"  # no window, whatever was set before
    made, words = asked["pareto_front"]
    assert [t.values for t in made.trials] == [[r, 0.8, 360.0] for r in robust]
    assert [d.name for d in made.directions] == ["MAXIMIZE", "MAXIMIZE", "MINIMIZE"]
    assert words["targets"](made.trials[0]) == (0.8, robust[0])
    assert words["target_names"] == [
        "validation clean accuracy", "validation robust accuracy, worst cell",
    ]  # fmt: skip
    assert ("param_importances" in asked) is enough
    for name in asked.keys() - {"pareto_front"}:
        assert asked[name][1]["target"](made.trials[0]) == robust[0]
        assert asked[name][1]["target_name"] == "validation robust accuracy, worst cell"
    if enough:
        assert asked["param_importances"][1]["evaluator"] == ("fanova", 5)


def test_each_draw_has_the_sampler_of_its_seed_and_number(tmp_path: Path, monkeypatch) -> None:
    asked: list[dict] = []
    for name in ("TPESampler", "RandomSampler"):
        kind = getattr(optuna.samplers, name)

        def noted(kind=kind, name=name, **words: object) -> object:
            if sys._getframe(1).f_code.co_name == "_sampler":
                asked.append({"kind": name, **words})
            return kind(**words)

        monkeypatch.setattr(optuna.samplers, name, noted)
    space = {"train.ema": {"kind": "uniform", "low": 0.0, "high": 0.9}}
    big = 10**6  # whose product lies above what a seed may be
    for kind, seed in (("tpe", 3), ("random", big)):
        config = config_with(space, **{"tune.search": kind, "tune.trials": 12, "seed": seed})
        search = Search(config, tmp_path / kind)
        for _ in range(3):
            search.next()
    tpe = {"n_startup_trials": 3, "multivariate": True, "group": True, "constant_liar": True}
    assert [a for a in asked if a["kind"] == "TPESampler"] == [
        {"kind": "TPESampler", "seed": 3 * 7919 + i, **tpe} for i in range(3)
    ]
    assert [a["seed"] for a in asked if a["kind"] == "RandomSampler"] == [
        (big * 7919 + i) % 2**31 for i in range(3)
    ]


def test_a_space_that_holds_nothing_new_is_asked_fifty_times(tmp_path: Path) -> None:
    space = {"model.fusion": {"kind": "choice", "values": ["amr", "mmtm"]}}
    config = config_with(space, **{"tune.trials": 9, "tune.search": "random"})
    search = Search(config, tmp_path / "of" / "any" / "depth")
    while (found := search.next()) is not None:
        search.end(found.key, "failed", "loss")
        before = len(search.study.trials)
    assert len(search.study.trials) - before == 50 == study.ATTEMPTS


def test_what_is_known_of_a_trial_that_runs(tmp_path: Path, monkeypatch) -> None:
    search = Search(
        config_with({"train.ema": {"kind": "uniform", "low": 0.0, "high": 0.9}}), tmp_path
    )
    found = search.next()
    assert found is not None and found.started_at is not None and found.ended_at is None
    assert (found.status, found.error, found.finalist, found.rows) == ("open", "", None, {})
    search.epoch(found.key, row(1, 0.3))
    search.end(found.key, "failed", "broken")
    ended = search.record(found.key)
    assert ended.ended_at >= ended.started_at and (ended.status, ended.error) == (
        "failed",
        "broken",
    )
    assert search.study.trials[0].value is None
    assert len(identity(search.config, "clips")) == 12 and len(digest({"a": 1})) == 8
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 2, "b": 1})
    assert search.wall_seconds == 0.0


def test_time_counts_up_to_the_last_word_of_a_session(tmp_path: Path, monkeypatch) -> None:
    now = 1000.0
    monkeypatch.setattr("components.search.study.time.time", lambda: now)
    search = Search(config_with(EMA), tmp_path)
    search.begin_session()
    found = search.next()
    assert found is not None
    for seconds, word in (
        (3, lambda: search.epoch(found.key, row(1))),
        (5, lambda: search.end(found.key, "completed")),
        (7, lambda: search.score_finalist(found.key, {"suite": "thin"})),
    ):
        before = Search(search.config, tmp_path).wall_seconds
        now += seconds
        word()
        assert Search(search.config, tmp_path).wall_seconds == before + seconds
    assert Search(search.config, tmp_path).out_of_time() is None


EMA = {"train.ema": {"kind": "uniform", "low": 0.0, "high": 0.9}}


def final(robust: float, clean: float = 0.5, limit: int = 0) -> dict:
    figures = {"robust": {"value": robust}, "clean": {"value": clean}}
    return {"finalist": {"suite": "thin", "limit": limit, **figures}}


@pytest.mark.parametrize(
    ("trials", "best", "among_two"),
    [
        ([], None, []),
        ([trial(0), trial(1, row(1), status="failed")], None, []),
        ([trial(0, row(1, 0.5)), trial(1, row(1, 0.6)), trial(2, row(1, 0.6))], 1, [1, 2]),
        ([trial(0, row(1, 0.5, 0.8)), trial(1, row(1, 0.5, 0.9))], 1, [1, 0]),
        ([trial(0, row(1, 0.5)), trial(1, row(1, 0.9), status="stopped")], 0, [0]),
        ([trial(0, row(1), status="open"), trial(1, row(1, 0.9), status="stopped")], 1, []),
        ([trial(0, row(1, 0.4), status="open"), trial(1, row(1, 0.2), status="stopped")], 0, []),
        ([trial(0, row(1), default=True), *(trial(i, row(1, 0.6)) for i in (1, 2))], 1, [1, 2, 0]),
        ([trial(0, row(1, 0.9)), trial(1, row(1, 0.1), **final(0.2))], 1, [0, 1]),
        ([trial(i, row(1), **final(0.2)) for i in (0, 1)], 0, [0, 1]),
        ([trial(i, row(1), **final(0.2, 0.5 + 0.1 * i)) for i in (0, 1)], 1, [0, 1]),
        ([trial(i, row(1), **final(0.3 - 0.1 * i)) for i in (0, 1)], 0, [0, 1]),
        ([trial(0, row(1, 0.6)), trial(1, row(1), **final(0.9, limit=3))], 0, [0, 1]),
    ],
)
def test_who_wins_and_who_is_scored_again(trials: list, best: int | None, among_two: list) -> None:
    """By the second rung; then completed before stopped and open ones; the first of equals."""
    config = config_with(EMA, **{"train.val_clips": 0})
    found = output.winner(config, trials)
    assert (found and found.number) == best
    assert [t.number for t in output.finalists(trials, 2)] == among_two


def test_every_column_of_the_table_and_every_figure_of_the_summary(tmp_path: Path) -> None:
    space = {
        **EMA,
        "model.fusion_stages": {"kind": "choice", "values": [[], [-1]]},
        "train.attack.steps": {"kind": "int", "low": 1, "high": 9},
        "train.attack.early_stop": {"kind": "choice", "values": [True, False]},
        "train.method": {"kind": "choice", "values": ["pgd_at", "trades"]},
    }
    config = config_with(
        space, **{"train.val_clips": 0, "train.ema": 0.25, "tune.workers": 3, "tune.epochs": 4}
    )
    trials = [
        trial(0, row(1, 0.5), row(2, 0.6), default=True, values={"train.ema": 0.25}, **final(0.3)),
        trial(1, row(1, 0.4, 0.95), status="stopped",
              values={"train.ema": 0, "train.attack.steps": 2, "train.attack.early_stop": False}),
        trial(2, status="failed", error="out of memory", values={"model.fusion_stages": [-1]}),
        trial(3, row(1, 0.2, 0.9), **final(0.35, 0.4)),
    ]  # fmt: skip
    flat = Config().train.attack
    wanted = {
        "number": [0, 1, 2, 3], "key": ["k0", "k1", "k2", "k3"],
        "status": ["completed", "stopped", "failed", "completed"],
        "default": [True, False, False, False], "winner": [False, False, False, True],
        "pareto": [True, True, False, False], "epochs": [2, 1, 0, 1],
        "best_epoch": [2, 1, None, 1], "robust_acc": [0.6, 0.4, None, 0.2],
        "clean_acc": [0.9, 0.95, None, 0.9], "finalist_robust_acc": [0.3, None, None, 0.35],
        "finalist_clean_acc": [0.5, None, None, 0.4], "passes": [720.0, 360.0, 0.0, 360.0],
        "seconds": [8.0, 4.0, 0.0, 4.0], "error": ["", "", "out of memory", ""],
        "train.ema": [0.25, 0.0, 0.25, 0.25],
        "model.fusion_stages": [json.dumps(list(Config().model.fusion_stages))] * 2
        + ["[-1]", json.dumps(list(Config().model.fusion_stages))],
        "train.attack.steps": [flat.steps, 2, flat.steps, flat.steps],
        "train.attack.early_stop": [flat.early_stop, False, flat.early_stop, flat.early_stop],
        "train.method": [Config().train.method] * 4,
    }  # fmt: skip
    table = output.table(config, trials)
    assert table.to_pydict() == wanted
    kinds = [table.schema.field(name).type for name in space]
    assert kinds == [pa.float64(), pa.string(), pa.int64(), pa.bool_(), pa.string()]

    class Made:
        folder, wall_seconds = tmp_path / "abc", 61.26

        def records(self) -> list:
            return trials

    written = output.write(tmp_path, config, Made(), "done")
    assert written == json.loads((tmp_path / "tune.json").read_text()) == {
        "enabled": True, "identity": "abc", "search": "tpe", "ended": "done", "trials": 4,
        "by_status": {"completed": 2, "stopped": 1, "failed": 1}, "seconds": 61.3,
        "device_hours": pytest.approx(16 * 3 / 3600), "passes": 1440.0,
        "passes_without_asha": 1440.0 + 3 * 360.0, "saved": pytest.approx(1 - 1440 / 2520),
        "winner": "k3", "winner_is_default": False, "best": {}, "val_robust_acc": 0.2,
        "val_clean_acc": 0.9, "finalist": trials[3].finalist,
        "default_finalist": trials[0].finalist,
    }  # fmt: skip
    trials[:] = [replace(trials[0], finalist=None), trials[2]]
    alone = output.summary(config, Made(), "done")
    assert alone["winner_is_default"] is True and alone["best"] == {"train.ema": 0.25}
    assert alone["finalist"] is None and alone["default_finalist"] is None
    values = {"train.lr": 0.1, "model.fusion": "amr", "train.ema": 0.25}
    trials[0] = replace(trials[0], values=values)
    output.write(tmp_path, config, Made(), "done")
    names = [line.split(":")[0] for line in (tmp_path / "best.yaml").read_text().splitlines()]
    assert names == sorted(values)  # so that equal settings are equal files
    trials[:] = [trials[1]]
    nothing = output.summary(config, Made(), "done")
    assert nothing["winner"] is None and nothing["winner_is_default"] is False
    assert nothing["best"] == {} and nothing["val_robust_acc"] is nothing["finalist"] is None
    output.write_disabled(tmp_path, config)
    assert json.loads((tmp_path / "tune.json").read_text()) == {"enabled": False, "trials": 0}
    assert (tmp_path / "best.yaml").read_text() == "{}\n"
    header = (tmp_path / "trials.csv").read_text().strip().replace('"', "")
    assert header.split(",") == list(wanted)
