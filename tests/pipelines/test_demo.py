"""What the demo says at its end."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components.config import Config
from mlflow_tracking.store import ROOT
from pipelines._stage import Stage
from pipelines.demo import runs, story, ui_command


def _evaluation(clean: float, both: float) -> dict:
    return {"clips": 146, "clean_acc": {"value": clean}, "worst": {"both": {"value": both}}}


def test_story_goes_from_the_model_that_breaks_to_the_one_that_stands():
    models = {"amr": _evaluation(0.945, 0.6), "late-natural": _evaluation(0.986, 0.0)}
    told = story(models, synthetic=True)
    assert "146 synthetic test clips" in told
    assert told.endswith("late-natural 99 % -> 0 %, amr 94 % -> 60 %")
    assert "synthetic" not in story(models, synthetic=False)


def test_address_of_the_runs_names_a_view_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    told = runs(Stage("demo", Config()))
    experiment = MlflowClient(uri).get_experiment_by_name("amr")
    address = f"http://127.0.0.1:5000/#/experiments/{experiment.experiment_id}/runs"
    assert told.startswith(f"{address}?workflowType=machine_learning&viewStateShareKey=robustness ")
    assert f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlflow.db" in told
    view = json.loads(experiment.tags["mlflow.sharedViewState.robustness"])
    assert view["orderByKey"] == "metrics.`test/robust_acc/both`" and not view["orderByAsc"]
    assert ui_command(ROOT / "mlflow.db") == "mlflow ui --backend-store-uri sqlite:///mlflow.db"


def test_store_that_is_away_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert "does not answer" in runs(Stage("demo", Config()))
