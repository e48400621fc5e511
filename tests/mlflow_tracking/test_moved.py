"""A project that was moved or copied: noticed before anything is written, and mended."""

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.errors import UserError
from components.sources import get_source
from mlflow_tracking import moved
from mlflow_tracking.record import records
from mlflow_tracking.run import start_run
from mlflow_tracking.store import ROOT
from pipelines import predict, register, relocate, sync


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder that MLflow's file lies in; its name would be encoded in a URI."""
    folder = tmp_path / "our project #1"
    folder.mkdir()
    return folder


@pytest.fixture
def registered(project: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The project with a registered champion in the store in `home`."""
    _use(home, monkeypatch)
    assert register.run_stage("register", register.main, project.words) == 0
    return project


def _use(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/mlflow.db")


def _predict(project: Any) -> int:
    found = get_source("ntu").find(project.data).clips[0]
    files = [str(project.data / found.video), str(project.data / found.skeleton)]
    return predict.main([*files, *project.words, "--json"])


def test_from_rename_to_predict_and_register(
    registered: Any, home: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    capsys.readouterr()
    assert _predict(registered) == 0
    answer = json.loads(capsys.readouterr().out)
    new = home.with_name("renamed")
    home.rename(new)
    _use(new, monkeypatch)

    for attempt in (
        lambda: _predict(registered),
        lambda: register.run_stage("register", register.main, registered.words),
        lambda: sync.run_stage("sync", sync.main, registered.words),
    ):
        assert attempt() == 2
        said = capsys.readouterr().err
        assert "moved" in said and "pipelines.relocate" in said
        assert f"ln -s {new} {home}" in said
    assert not home.exists()

    assert relocate.run_stage("relocate", relocate.main, registered.words) == 0
    assert "mlflow.db.before-relocate" in capsys.readouterr().out
    assert _predict(registered) == 0
    assert json.loads(capsys.readouterr().out) == answer
    assert register.run_stage("register", register.main, registered.words) == 0
    assert not home.exists()
    # The file of before still has the former path, so nothing is lost if a slip was made.
    with sqlite3.connect(new / "mlflow.db.before-relocate") as before:
        (place,) = before.execute(
            "select artifact_location from experiments where name = 'amr'"
        ).fetchone()
    assert place == (home / "mlartifacts").as_uri()

    assert relocate.run_stage("relocate", relocate.main, registered.words) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_a_link_mends_as_well(
    registered: Any, home: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = home.with_name("renamed")
    home.rename(new)
    home.symlink_to(new)
    _use(new, monkeypatch)
    assert _predict(registered) == 0
    assert register.run_stage("register", register.main, registered.words) == 0


def test_a_copy_does_not_write_to_the_original(
    registered: Any, home: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = home.with_name("copy")
    shutil.copytree(home, copy)
    _use(copy, monkeypatch)
    before = sorted((home / "mlartifacts").rglob("*"))
    assert register.run_stage("register", register.main, registered.words) == 2
    said = capsys.readouterr().err
    assert f"belongs to {home}" in said and "ln -s" not in said
    assert relocate.run_stage("relocate", relocate.main, registered.words) == 0
    assert register.run_stage("register", register.main, registered.words) == 0
    assert sorted((home / "mlartifacts").rglob("*")) == before
    assert moved.former_folders(home / "mlflow.db") == []


def test_what_waited_for_the_store_is_published_after_the_move(
    project: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use(home, monkeypatch)
    with start_run("train", project.config, name="amr", artifacts=project.artifacts) as run:
        run.log_metrics({"val/clean_acc": 0.5}, 1)
    (record,) = records(project.artifacts)
    record.update(artifacts=record.keep_text("late", "late.txt"))
    new = home.with_name("renamed")
    home.rename(new)
    _use(new, monkeypatch)
    assert relocate.run_stage("relocate", relocate.main, project.words) == 0
    # Another process, as after a move: MLflow's client remembers where a run's files lay.
    command = [sys.executable, "-m", "pipelines.sync", *project.words]
    subprocess.run(command, cwd=ROOT, check=True)
    assert (new / "mlartifacts" / str(run.run_id) / "artifacts" / "late.txt").is_file()
    assert not home.exists()


def test_places_that_others_chose_and_stores_that_did_not_move_stay(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    assert moved.former_folders(file) == []
    file.touch()
    assert moved.former_folders(file) == []
    with sqlite3.connect(file) as database:
        database.execute("create table experiments (artifact_location text)")
        database.executemany(
            "insert into experiments values (?)",
            [
                ((tmp_path / "mlartifacts").as_uri(),),
                ("s3://bucket/mlartifacts",),
                ("/gone/mlruns/0",),
                (None,),
            ],
        )
    assert moved.former_folders(file) == []
    (tmp_path / "notes.db").write_text("no database at all, but some text of a fair length")
    with pytest.raises(UserError, match="no store of MLflow's"):
        moved.former_folders(tmp_path / "notes.db")


def test_only_whole_folders_are_renamed(tmp_path: Path) -> None:
    """/gone/mlartifacts-2 is another folder than /gone/mlartifacts."""
    file = tmp_path / "mlflow.db"
    with sqlite3.connect(file) as database:
        database.execute("create table experiments (artifact_location text)")
        database.execute("create table runs (artifact_uri text)")
        database.execute("insert into experiments values ('file:///gone/mlartifacts')")
        rows = [("file:///gone/mlartifacts/1/artifacts",), ("file:///gone/mlartifacts-2/1",)]
        database.executemany("insert into runs values (?)", rows)
    changed, _ = moved.relocate(file)
    assert changed == 2
    with sqlite3.connect(file) as database:
        found = [row for (row,) in database.execute("select artifact_uri from runs")]
    new = (tmp_path / "mlartifacts").as_uri()
    assert found == [f"{new}/1/artifacts", "file:///gone/mlartifacts-2/1"]
