"""Models and data sets in MLflow: which is best on what, once for each checkpoint."""

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from components.checkpoint import load_model, read_config, save_checkpoint
from components.shards import ShardSet
from mlflow_tracking import store
from mlflow_tracking.evaluation import log_evaluation
from mlflow_tracking.linked import DataSet, data_set, find_model
from mlflow_tracking.publish import pending, publish
from mlflow_tracking.record import FOLDER, Record
from mlflow_tracking.run import start_run
from pipelines import register
from pipelines._ray import TrainResult
from pipelines._reporter import Reporter
from pipelines._stage import Stage
from tests.mlflow_tracking.test_publish import Line

DATA = DataSet("sample-test", "f" * 64, "/data/shards", {"clips": 12})


def _models(client: MlflowClient, experiment: str = "amr") -> list[Any]:
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return list(client.search_logged_models([found.experiment_id]))


def _with_model(folder: Path, checkpoint: Path, experiment: str) -> Record:
    """An ended run that made a model."""
    from mlflow_tracking.linked import model_entry

    record = Record(folder).create(name="train amr", experiment=experiment)
    record.add_metrics({"val/clean_acc": 0.8, "val/robust_acc/both": 0.4, "train/loss": 1.0}, 3)
    record.add_metrics({"val/clean_acc": 0.7}, 2)
    about: dict[str, Any] = {"split": "val", "step": 3}
    entry = model_entry(
        record, "amr-s0", DATA, params={"p": 1}, tags={"variant": "amr"}, checkpoint=checkpoint,
        **about,
    )  # fmt: skip
    record.update(data_sets={"val": DATA.entry("val")}, models={"abc": entry})
    record.update(status="FINISHED", ended_at=record.body()["started_at"] + 1000)
    return record


def _told(client: MlflowClient, run_id: str) -> dict[str, Any]:
    """All that MLflow says of the one model of a run."""
    run = client.get_run(run_id)
    (model,) = _models(client, client.get_experiment(run.info.experiment_id).name)
    files = [f.path for f in client.list_logged_model_artifacts(model.model_id, "artifacts")]
    inside = client.list_logged_model_artifacts(model.model_id, "artifacts/checkpoint")
    history = client.get_metric_history(run_id, "val/clean_acc")
    return {
        "model": (model.name, str(model.status), model.source_run_id, model.params),
        "tags": (model.tags["variant"], model.tags["amr.checkpoint"]),
        "figures": sorted(
            (m.key, m.value, m.step, m.dataset_name, m.dataset_digest) for m in model.metrics
        ),
        "files": (files, sorted(f.path.rpartition("/")[2] for f in inside)),
        "run": sorted((m.step, m.value) for m in history),
        "linked": [(o.model_id == model.model_id, o.step) for o in run.outputs.model_outputs],
        "data": [
            (d.dataset.name, d.dataset.digest, d.tags[0].value) for d in run.inputs.dataset_inputs
        ],
    }


def test_cut_off_after_any_request_there_is_one_model(project: Any, tmp_path: Path) -> None:
    client = store.client(project.uri)
    checkpoint = project.artifacts / "train" / "amr-s0" / "best"
    attempts, told = 0, []
    while True:
        experiment = f"cut{attempts}"
        record = _with_model(tmp_path / FOLDER / experiment, checkpoint, experiment)
        line = Line(client, calls=attempts)
        try:
            run_id = publish(record, project.uri, line)  # type: ignore[arg-type]
        except ConnectionError:
            assert pending(record)
            run_id = publish(record, project.uri, client)
        assert not pending(record)
        found = _told(client, run_id)
        assert found["model"][2] == run_id
        found["model"] = (*found["model"][:2], *found["model"][3:])
        told.append(found)
        if line.left is not None and line.left >= 0:
            break
        attempts += 1
    assert attempts == len(line.made) >= 9
    digest = "f" * 16
    assert told[0] == {
        "model": ("amr-s0", "READY", {"p": "1"}),
        "tags": ("amr", "abc"),
        "figures": [
            ("val/clean_acc", 0.8, 3, "sample-test", digest),
            ("val/robust_acc/both", 0.4, 3, "sample-test", digest),
        ],
        "files": (["artifacts/checkpoint"], ["config.json", "model.safetensors"]),
        "run": [(2, 0.7), (3, 0.8)],
        "linked": [(True, 3)],
        "data": [("sample-test", digest, "val")],
    }
    assert all(one == told[0] for one in told)

    idle = Line(client)
    (record.folder / "published.json").unlink()
    publish(record, project.uri, client)
    publish(record, project.uri, idle)  # type: ignore[arg-type]
    assert idle.made == [] and _told(client, run_id)["linked"] == [(True, 3)]


def test_the_stages_make_one_model_of_a_checkpoint(project: Any, tmp_path: Path) -> None:
    """Training makes it, the evaluation measures it, the registry's version is made of it."""
    config, artifacts = project.config, project.artifacts
    best = artifacts / "train" / "amr-s0" / "best"
    shards = ShardSet.open(artifacts / "shards")
    row = {"epoch": 2, "loss": 0.5, "val_clean_acc": 0.75, "val_clips": 8, "seconds": 1.0}
    row |= {f"val_robust_acc_{cell}": 0.25 for cell in ("rgb", "skeleton", "both", "worst")}
    row |= {"rolled_back": False, "finished_at": 1_700_000_000.0, "clips_per_s": 9.0, "steps": 1}
    with Reporter(config, artifacts, artifacts / "train" / "amr-s0", 24, shards) as reporter:
        reporter.finish(TrainResult(best, best, [row], row))
    summary = json.loads((artifacts / "evaluation" / "amr-s0.json").read_text())
    summary["shards_fingerprint"] = shards.fingerprint
    (artifacts / "evaluation" / "amr-s0.json").write_text(json.dumps(summary))
    log_evaluation(config, artifacts, "amr-s0", str(artifacts / "shards"))
    stage = Stage("register", config)
    register.main(stage)

    client = store.client(project.uri)
    (model,) = _models(client)
    assert model.name == "amr-s0" and model.tags["variant"] == "amr"
    assert model.params["model.fusion"] == "amr" and model.source_run_id == reporter.run.run_id
    digest = shards.fingerprint[:16]
    sets = {(m.dataset_name, m.dataset_digest) for m in model.metrics}
    assert sets == {("sample-val", digest), ("sample-test", digest)}
    figures = {m.key: m.value for m in model.metrics}
    assert figures["val/robust_acc/both"] == 0.25
    assert figures["test/robust_acc/both"] == summary["worst"]["both"]["value"]
    (version,) = client.search_model_versions("name = 'amr'")
    assert version.source == f"models:/{model.model_id}"
    body = json.loads((artifacts / "registered.json").read_text())
    assert mlflow.pyfunc.load_model(body["uri"]).metadata.model_id == model.model_id

    # The run that made the model has its test figures too, for MLflow's table of runs.
    training = client.get_run(reporter.run.run_id or "")
    assert training.data.metrics["test/robust_acc/both"] == summary["worst"]["both"]["value"]
    assert {d.dataset.name for d in training.inputs.dataset_inputs} == {
        "sample-train",
        "sample-val",
        "sample-test",
    }
    assert not pending(reporter.run.record)
    log_evaluation(config, artifacts, "amr-s0", str(artifacts / "shards"))
    again = client.get_metric_history(training.info.run_id, "test/clean_acc")
    assert [m.step for m in again] == [0, 1]

    # The question that this is for: which is best on what.
    mlflow.set_tracking_uri(project.uri)
    table = mlflow.search_logged_models(
        [client.get_experiment_by_name("amr").experiment_id],
        datasets=[{"dataset_name": "sample-test", "dataset_digest": digest}],
        order_by=[{"field_name": "metrics.test/robust_acc/both", "ascending": False}],
        output_format="list",
    )
    assert [m.model_id for m in table] == [model.model_id]


def test_a_version_keeps_its_model_when_it_is_measured_again(project: Any) -> None:
    config, artifacts = project.config, project.artifacts
    stage = Stage("register", config)
    register.main(stage)
    first = json.loads((artifacts / "registered.json").read_text())
    path = artifacts / "evaluation" / "amr-s0.json"
    before = json.loads(path.read_text())
    path.write_text(json.dumps({**before, "suite": "another"}))
    register.main(stage)
    second = json.loads((artifacts / "registered.json").read_text())
    assert second["version"] == first["version"] + 1
    client = store.client(project.uri)
    sources = set()
    for body, suite in ((first, before.get("suite")), (second, "another")):
        uri = f"models:/amr/{body['version']}/artifacts/evaluation/summary.json"
        kept = json.loads(Path(mlflow.artifacts.download_artifacts(uri)).read_text())
        assert kept.get("suite") == suite
        source = client.get_model_version("amr", body["version"]).source
        model = client.get_logged_model(source.removeprefix("models:/"))
        assert {m.dataset_name for m in model.metrics} == {"sample-test"}
        sources.add(source)
    assert len(sources) == 2


def test_other_weights_are_another_model(project: Any) -> None:
    config, artifacts = project.config, project.artifacts
    best = artifacts / "train" / "amr-s0" / "best"
    shards = ShardSet.open(artifacts / "shards")
    keys = []
    for change in (0.0, 1.0):
        model, about = load_model(best)
        next(model.parameters()).data += change
        save_checkpoint(best, model, about)
        keys.append(read_config(best)["weights_sha256"])
        with start_run("train", config, name="x", artifacts=artifacts) as run:
            run.log_metrics({"val/clean_acc": 0.5 + change / 10}, step=1)
            data = data_set("sample", shards, "val", 8)
            run.log_model(keys[-1], "amr-s0", data, split="val", step=1)
    client = store.client(project.uri)
    experiment = client.get_experiment_by_name("amr").experiment_id
    ids = {find_model(client, experiment, key) for key in keys}
    assert len(ids) == 2 and None not in ids


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_that_is_not_finite_stays_away(project: Any, value: float) -> None:
    config, artifacts = project.config, project.artifacts
    with start_run("evaluate", config, name="x", artifacts=artifacts) as run:
        run.log_metrics({"test/clean_acc": 0.5, "test/odd": value})
        run.log_model("k", "amr-s0", DATA, split="test")
    (model,) = _models(store.client(project.uri))
    assert [m.key for m in model.metrics] == ["test/clean_acc"]
