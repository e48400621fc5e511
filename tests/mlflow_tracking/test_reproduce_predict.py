"""The command lines that start from a registered model or a run: predict and reproduce."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from components.config import apply_overrides
from components.sources import get_source
from mlflow_tracking import lineage
from mlflow_tracking.record import Record, newest
from mlflow_tracking.reproduce import compare, differences, read_run
from mlflow_tracking.run import start_run
from pipelines import predict, register, reproduce


def clip_files(project: Any) -> list[str]:
    found = get_source("ntu").find(project.data).clips[0]
    return [str(project.data / found.video), str(project.data / found.skeleton)]


def test_predict(project: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert register.run_stage("register", register.main, project.words) == 0
    capsys.readouterr()
    files = clip_files(project)
    picture = tmp_path / "picture.png"
    assert predict.main([*files, *project.words, "--json", "--picture", str(picture)]) == 0
    registered = json.loads(capsys.readouterr().out)
    assert picture.read_bytes().startswith(b"\x89PNG")
    folder = project.artifacts / "train" / "amr-s0" / "best"
    assert predict.main([*files, *project.words, "--json", "--model", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out) == registered
    assert predict.main([*files, *project.words]) == 0
    assert registered["class_name"] in capsys.readouterr().out

    files[1] = str(tmp_path / "torn.skeleton")
    Path(files[1]).write_text("3\n1\n")
    assert predict.main([*files, *project.words]) == 2
    assert "skeleton-truncated" in capsys.readouterr().err
    assert predict.main(["none.avi", files[1], *project.words]) == 2
    assert "no such file" in capsys.readouterr().err
    assert predict.main([*clip_files(project), *project.words, "--model", "models:/other/3"]) == 2
    assert "pipelines.register" in capsys.readouterr().err


@pytest.fixture
def run_id(project: Any) -> str:
    with start_run("train", project.config, name="amr", artifacts=project.artifacts) as run:
        run.log_metrics({"val/clean_acc": 0.5, "time/epoch_s": 3.0}, 1)
        run.log_metrics({"val/clean_acc": 0.6}, 2)
    assert run.run_id is not None
    return run.run_id


def test_what_differs_is_named(project: Any, run_id: str) -> None:
    recorded = read_run(MlflowClient(project.uri), run_id)
    assert recorded.stage == "train"
    assert recorded.config == project.config
    here = recorded.facts
    assert here.keys() == lineage.collect(project.config, project.artifacts).keys()
    assert differences(recorded, here, project.config) == []
    other = apply_overrides(project.config, {"train.epochs": 3})
    (setting,) = differences(recorded, here, other)
    assert (setting.what, setting.there, setting.here) == ("train.epochs", 19, 3)
    assert not setting.blocks
    changed = {**here, "git_commit": "abc", "versions": {**here["versions"], "torch": "9"}}
    found = differences(recorded, changed, project.config)
    assert [d.what for d in found] == ["git_commit", "versions.torch"]
    assert all(d.blocks for d in found)


def test_numbers_are_compared_but_for_the_clock(project: Any, run_id: str, tmp_path: Path) -> None:
    recorded = read_run(MlflowClient(project.uri), run_id)
    assert recorded.metrics == {("val/clean_acc", 1): 0.5, ("val/clean_acc", 2): 0.6}
    again = Record(tmp_path / "again").create(name="n", experiment="e")
    again.add_metrics({"val/clean_acc": 0.5, "time/epoch_s": 9.0}, 1)
    assert compare(recorded, again, 0.0)[1] == ["val/clean_acc at step 2: 0.6 then, None now"]
    again.add_metrics({"val/clean_acc": 0.61}, 2)
    assert compare(recorded, again, 0.0)[1] == ["val/clean_acc at step 2: 0.6 then, 0.61 now"]
    assert compare(recorded, again, 0.02)[1] == []


def test_reproduce_refuses_other_shards(
    project: Any, run_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    reproduce.main([run_id, *project.words, "--only-compare"])
    assert "shards" not in capsys.readouterr().out
    index = project.artifacts / "shards" / "shards.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "fingerprint": "other"}))
    assert reproduce.main([run_id, *project.words]) == 2
    assert "DIFFERS: shards" in capsys.readouterr().out
    assert reproduce.main(["0" * 32, *project.words]) == 2
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.slow
def test_an_evaluation_is_had_again(
    project: Any, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from pipelines import evaluate

    words = [
        *project.words,
        "ray.tasks=1",
        "evaluate.curve_clips=0",
        "evaluate.checks=false",
        "ray.workers=1",
    ]
    assert evaluate.run_stage("evaluate", evaluate.main, words) == 0
    record = newest(project.artifacts, "evaluate", "amr-s0")
    assert record is not None
    run_id = record.published()["run_id"]
    # A commit made meanwhile (by whoever works in this folder) is reported and overruled.
    assert reproduce.main([run_id, *words, "--anyway"]) == 0
    assert "the same: all" in capfd.readouterr().out
    found = MlflowClient(project.uri).get_run(run_id)
    assert "test/robust_acc/pgd20/rgb" in found.data.metrics
    assert found.data.tags["stage"] == "evaluate"
