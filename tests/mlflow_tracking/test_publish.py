"""Publishing a record: called again at any time, cut off anywhere, MLflow holds it all once."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from components.config import apply_overrides
from components.errors import UserError
from components.search.objective import TrialRecord
from mlflow_tracking import store
from mlflow_tracking.publish import METRICS_AT_ONCE, pending, publish
from mlflow_tracking.record import FOLDER, Record
from mlflow_tracking.run import start_run
from mlflow_tracking.system import Sampler
from pipelines import sync
from pipelines._ray import TrainResult
from pipelines._reporter import Reporter
from pipelines._trial_runs import TrialRuns

CALLS = (
    *("create_experiment", "create_run", "log_batch", "log_artifact"),
    *("set_terminated", "update_run", "log_inputs", "log_outputs", "create_logged_model"),
    *("set_logged_model_tags", "log_model_artifact", "finalize_logged_model"),
)


class Line:
    """A client whose line may break: after `calls` requests the server's answer is lost."""

    def __init__(self, client: MlflowClient, calls: int | None = None) -> None:
        self.client, self.left, self.made = client, calls, list[str]()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.client, name)
        if name not in CALLS:
            return found

        def call(*args: Any, **given: Any) -> Any:
            self.made.append(name)
            answer = found(*args, **given)
            if self.left is not None:
                self.left -= 1
                if self.left < 0:
                    raise ConnectionError("the answer is lost")
            return answer

        return call


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture(scope="module")
def client(uri: str) -> MlflowClient:
    return store.client(uri)


def ended(folder: Path, **about: Any) -> Record:
    """An ended run with a bit of everything."""
    params = {f"p{n}": str(n) for n in range(95)}
    fields = {"name": "train amr", "experiment": "e", "params": params, "tags": {"stage": "train"}}
    record = Record(folder).create(**{**fields, **about})
    for step in range(METRICS_AT_ONCE // 2 + 10):
        record.add_metrics({"loss": step / 7, "acc": 0.5}, step)
    record.update(artifacts=record.keep_text("hello", "note.txt", "lineage"))
    record.update(status="FINISHED", ended_at=record.body()["started_at"] + 1000)
    return record


def content(client: MlflowClient, run_id: str, folder: Path) -> dict[str, Any]:
    run = client.get_run(run_id)
    note = Path(client.download_artifacts(run_id, "lineage/note.txt", str(folder)))
    return {
        "metrics": {
            key: [(p.step, p.timestamp, p.value) for p in client.get_metric_history(run_id, key)]
            for key in run.data.metrics
        },
        "params": run.data.params,
        "tags": {k: v for k, v in run.data.tags.items() if k in ("stage", "amr.key", "extra")},
        "note": note.read_text(),
        "status": (run.info.status, run.info.start_time, run.info.end_time),
    }


def expected(record: Record) -> dict[str, Any]:
    body = record.body()
    points = record.points()
    return {
        "metrics": {
            name: [(p.step, p.ms, p.value) for p in points if p.name == name]
            for name in dict.fromkeys(p.name for p in points)
        },
        "params": body["params"],
        "tags": {**body["tags"], "amr.key": record.key},
        "note": "hello",
        "status": ("FINISHED", body["started_at"], body["ended_at"]),
    }


def test_twice_is_once(tmp_path: Path, uri: str, client: MlflowClient) -> None:
    record = ended(tmp_path / FOLDER / tmp_path.name)
    assert pending(record)
    run_id = publish(record, uri, client)
    assert not pending(record)
    assert content(client, run_id, tmp_path) == expected(record)
    assert not (record.folder / "files").exists()

    idle = Line(client)
    assert publish(record, uri, idle) == run_id  # type: ignore[arg-type]
    assert idle.made == []

    # What comes later goes alone.
    record.update(tags={"extra": "1"})
    publish(record, uri, idle)  # type: ignore[arg-type]
    assert idle.made == ["log_batch", "set_terminated"]
    assert content(client, run_id, tmp_path) == expected(record)


def test_cut_off_after_any_request(tmp_path: Path, uri: str, client: MlflowClient) -> None:
    attempts = 0
    while True:
        record = ended(tmp_path / FOLDER / f"{tmp_path.name}-{attempts}", experiment=f"e{attempts}")
        line = Line(client, calls=attempts)
        try:
            run_id = publish(record, uri, line)  # type: ignore[arg-type]
        except ConnectionError:
            assert pending(record)
            run_id = publish(record, uri, client)
        else:
            break
        assert content(client, run_id, tmp_path) == expected(record)
        experiment = client.get_experiment_by_name(f"e{attempts}")
        assert [r.info.run_id for r in client.search_runs([experiment.experiment_id])] == [run_id]
        attempts += 1
    assert attempts == len(line.made) == 9


def test_what_was_published_may_be_forgotten(
    tmp_path: Path, uri: str, client: MlflowClient
) -> None:
    record = ended(tmp_path / FOLDER / tmp_path.name)
    run_id = publish(record, uri, client)
    (record.folder / "published.json").unlink()
    assert publish(record, uri, client) == run_id
    assert not pending(record)
    assert content(client, run_id, tmp_path) == expected(record)


def test_an_artifact_that_changed_is_sent_again_and_no_other(
    tmp_path: Path, uri: str, client: MlflowClient
) -> None:
    record = Record(tmp_path / FOLDER / tmp_path.name).create(name="n", experiment="e")
    record.update(artifacts=record.keep_text("first", "note.txt", "lineage"))
    record.update(artifacts=record.keep_text("same", "other.txt"))
    run_id = publish(record, uri, client)
    line = Line(client)
    record.update(artifacts=record.keep_text("second", "note.txt", "lineage"))
    record.update(artifacts=record.keep_text("same", "other.txt"))
    publish(record, uri, line)  # type: ignore[arg-type]
    assert line.made == ["log_artifact"]
    assert content(client, run_id, tmp_path)["note"] == "second"


def test_what_mlflow_refuses_does_not_hold_up_the_rest(
    tmp_path: Path, uri: str, client: MlflowClient
) -> None:
    record = ended(tmp_path / FOLDER / tmp_path.name, params={"lr": "1", "eps": "2"})
    record.add_metrics({"loss": float("nan"), "more": float("inf"), "bad name!": 1.0, "ok": 2.0}, 7)
    record.update(params={"x" * 9000: "3"})
    run_id = publish(record, uri, client)
    assert not pending(record)
    assert record.published()["refused"] == 2
    data = client.get_run(run_id).data
    assert data.params == {"lr": "1", "eps": "2"}
    assert data.metrics.keys() == {"loss", "acc", "ok"}


def test_a_run_goes_on_at_its_own_address(tmp_path: Path, uri: str, client: MlflowClient) -> None:
    record = ended(tmp_path / FOLDER / tmp_path.name)
    publish(record, uri, client)
    other = f"sqlite:///{tmp_path}/other.db"
    with pytest.raises(UserError, match="was started at .*mlflow.db, but the tracking URI is now"):
        publish(record, other, store.client(other))


def test_sync_publishes_runs_whose_results_were_overwritten_since(
    project: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody answers
    config = apply_overrides(project.config, {"tracking.patience": 0.1})
    result, runs = project.artifacts / "result.json", []
    for number in (1, 2):
        result.write_text(str(number))
        with start_run("train", config, name="amr", artifacts=project.artifacts) as run:
            run.log_metrics({"loss": 1 / number}, 3)
            run.log_artifact(result)
        runs.append(run)
    result.unlink()
    assert sync.run_stage("sync", sync.main, project.words) == 2
    assert "does not answer; 2 runs wait in" in capsys.readouterr().err

    monkeypatch.setenv("MLFLOW_TRACKING_URI", project.uri)
    assert sync.run_stage("sync", sync.main, project.words) == 0
    client = MlflowClient(project.uri)
    for number, run in enumerate(runs, 1):
        found = client.get_run(run.run_id or "")
        assert found.data.metrics == {"loss": 1 / number}
        assert found.info.status == "FINISHED"
        file = client.download_artifacts(found.info.run_id, "result.json", str(project.artifacts))
        assert Path(file).read_text() == str(number)
    capsys.readouterr()
    assert sync.run_stage("sync", sync.main, project.words) == 0
    assert "all 2 runs under" in capsys.readouterr().out


def test_no_secret_reaches_the_disk_or_mlflow(project: Any) -> None:
    words = {"tracking.uri": "postgresql://me:hunter2@host/db", "shard.uri": "s3://k:hunter2@b/x"}
    config = apply_overrides(project.config, words)
    with pytest.raises(RuntimeError):
        with start_run("train", config, name="amr", artifacts=project.artifacts) as run:
            run.log_text("see s3://k:hunter2@b/x", "note.txt")
            kept = [f for f in run.record.folder.rglob("*") if f.is_file()]
            raise RuntimeError("s3://k:hunter2@b/x does not answer")
    files = {*kept, *(f for f in run.record.folder.rglob("*") if f.is_file())}
    assert {"record.json", "params.yaml", "note.txt"} <= {file.name for file in files}
    texts = [file.read_text() for file in files if file.exists()]
    assert not any("hunter2" in text for text in texts)
    found = MlflowClient(project.uri).get_run(run.run_id or "")
    assert "hunter2" not in json.dumps(found.to_dictionary())
    assert found.info.status == "FAILED"
    assert found.data.tags["error"] == "RuntimeError: s3://***@b/x does not answer"


def test_a_run_with_other_settings_is_another_run(project: Any) -> None:
    def start(**words: Any) -> Any:
        config = apply_overrides(project.config, words)
        return start_run("train", config, name="amr", artifacts=project.artifacts)

    killed = start()
    killed._lock.release()  # as the system does for a process that is gone
    other = start(**{"train.epochs": 3})
    again = start(**{"tracking.patience": 9.0})
    beside = start()
    assert again.key == killed.key
    assert len({killed.key, other.key, beside.key}) == 3
    for run in (other, again, beside, killed):
        assert run.end()


def test_the_thread_of_an_ended_run_publishes_no_more(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a record gets later may have to go elsewhere: the store may have moved since."""

    def slowly(record: Record) -> bool:
        if threading.current_thread().name == "mlflow-publisher":
            time.sleep(0.3)
        return pending(record)

    monkeypatch.setattr("mlflow_tracking.publish.pending", slowly)
    before = set(threading.enumerate())
    with start_run("train", project.config, name="amr", artifacts=project.artifacts) as run:
        run.log_metrics({"val/clean_acc": 0.5}, 1)
    since = set(threading.enumerate()) - before
    assert "mlflow-publisher" not in {thread.name for thread in since}


def test_the_machine_is_watched(tmp_path: Path) -> None:
    record = Record(tmp_path / FOLDER / tmp_path.name).create(name="n", experiment="e")
    sampler = Sampler(record, 0.02)
    while record.count() < 12:
        pass
    sampler.stop()
    names = {point.name for point in record.points()}
    assert {"system/cpu_utilization_percentage", "system/disk_usage_percentage"} <= names


def test_epochs_that_were_not_seen_come_from_the_history(project: Any, tmp_path: Path) -> None:
    history = [
        {
            **{
                "epoch": n,
                "epochs": 3,
                "loss": 1 / n,
                "val_clips": 4,
                "val_clean_acc": 0.5,
                "seconds": 2.0,
            },
            **{f"val_robust_acc_{c}": 0.25 for c in ("rgb", "skeleton", "both", "worst")},
            **{"train_clean_acc": 0.5, "train_robust_acc": None, "clips_per_s": 3.0, "lr": 0.1},
            **{"steps": 2, "rolled_back": False, "finished_at": 1_700_000_000.5 + n},
        }
        for n in (1, 2, 3)
    ]
    best = project.artifacts / "train" / "amr-s0" / "best"
    with Reporter(project.config, project.artifacts, tmp_path, 4) as reporter:
        reporter.handle({"kind": "epoch", **history[1]})
        reporter.finish(TrainResult(best, best, history, history[2]))
    losses = [p for p in reporter.run.record.points() if p.name == "train/loss"]
    assert sorted((p.step, p.ms, p.value) for p in losses) == [
        (n, 1_700_000_000_500 + 1000 * n, 1 / n) for n in (1, 2, 3)
    ]
    run = MlflowClient(project.uri).get_run(reporter.run.run_id or "")
    assert run.data.metrics["val/robust_acc/worst"] == 0.25
    assert "train/robust_acc" not in run.data.metrics


def test_trials_are_nested_and_end_as_they_ended(project: Any) -> None:
    config, artifacts = project.config, project.artifacts
    row = {"epoch": 1, "loss": 0.5, "val_clean_acc": 0.75, "finished_at": 1_700_000_000.0}
    row |= {f"val_robust_acc_{cell}": 0.25 for cell in ("rgb", "skeleton", "both", "worst")}
    with start_run("tune", config, name="search", artifacts=artifacts) as search:
        runs = TrialRuns(config, artifacts, search)
        known = TrialRecord(7, "7-ab", {}, {"train.lr": 0.01}, "pgd_at", status="failed", error="x")
        runs.start(known)
        runs.start(known)  # its process was lost and starts again
        trial = runs.runs["7-ab"]
        runs.epoch(known, row)
        runs.epoch(known, row)
        runs.end(known)
    found = MlflowClient(project.uri).get_run(trial.run_id or "")
    assert found.data.tags["mlflow.parentRunId"] == search.run_id
    assert (found.data.tags["trial.status"], found.data.tags["error"]) == ("failed", "x")
    assert found.data.params["train.lr"] == "0.01"
    assert found.data.metrics["val/robust_acc/worst"] == 0.25
    assert found.info.status == "FAILED"
    points = MlflowClient(project.uri).get_metric_history(found.info.run_id, "train/loss")
    assert [(p.step, p.timestamp, p.value) for p in points] == [(1, 1_700_000_000_000, 0.5)]
