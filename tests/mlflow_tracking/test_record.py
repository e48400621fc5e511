"""The record on disk: nothing lost, nothing double, whoever writes and whatever is killed."""

import csv
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mlflow_tracking import names, store
from mlflow_tracking.record import FOLDER, Record
from mlflow_tracking.store import ROOT


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "train-1").create(name="n", experiment="e")


def metrics(record: Record) -> list[tuple[str, int, float]]:
    return [(point.name, point.step, point.value) for point in record.points()]


def test_the_first_value_of_a_step_stands(record: Record) -> None:
    record.add_metrics({"loss": 1.0}, 1, ms=5)
    Record(record.folder).add_metrics({"loss": 2.0, "acc": 0.5}, 1)  # a worker that restarted
    record.add_metrics({"loss": 3.0}, 11)
    assert metrics(record) == [("loss", 1, 1.0), ("acc", 1, 0.5), ("loss", 11, 3.0)]
    assert record.points()[0].ms == 5
    assert record.points(2) == record.points()[2:]
    assert record.count() == 3
    with (record.folder / "metrics.csv").open(newline="") as lines:
        assert [row["name"] for row in csv.DictReader(lines)] == ["loss", "acc", "loss"]


def test_values_keep_every_bit_and_those_that_are_not_finite_their_name(record: Record) -> None:
    record.add_metrics({"third": 1 / 3, "loss": float("nan"), "acc": float("-inf")}, 0)
    third, loss, acc = (value for _, _, value in metrics(record))
    assert third == 1 / 3
    assert math.isnan(loss)
    assert acc == -math.inf


@pytest.mark.parametrize("torn", ["ms,step,na", "7,3,loss,0.12", "7,3"])
def test_half_a_line_is_no_value(record: Record, torn: str) -> None:
    if not torn.startswith("ms"):
        record.add_metrics({"loss": 0.5}, 2)
    before = metrics(record)
    with (record.folder / "metrics.csv").open("a") as file:
        file.write(torn)
    assert metrics(record) == before
    record.add_metrics({"loss": 0.125}, 3)
    assert metrics(record) == [*before, ("loss", 3, 0.125)]


@pytest.mark.parametrize("size", [5, 2 << 20])
def test_an_artifact_is_kept_as_it_was(record: Record, tmp_path: Path, size: int) -> None:
    file = tmp_path / "best" / "deep" / "model.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"1" * size)
    record.update(artifacts=record.keep(tmp_path / "best", "checkpoint"))
    file.unlink()  # a checkpoint is replaced, not overwritten
    file.write_bytes(b"2" * size)
    artifacts = record.body()["artifacts"]
    assert list(artifacts) == ["checkpoint/best/deep/model.safetensors"]
    kept = record.folder / artifacts["checkpoint/best/deep/model.safetensors"]["file"]
    assert kept.read_bytes() == b"1" * size


def test_the_same_file_again_is_kept_once(record: Record) -> None:
    record.update(artifacts=record.keep_text("first", "note.txt", "lineage"))
    assert record.keep_text("first", "note.txt", "lineage") == {}
    assert len(list((record.folder / "files").iterdir())) == 1
    assert list(record.keep_text("second", "note.txt", "lineage")) == ["lineage/note.txt"]


def _write(folder: str, who: int) -> None:
    record = Record(Path(folder))
    for step in range(50):
        record.add_metrics({f"m{who}": float(step), "shared": float(step)}, step)
        record.update(tags={f"{who}-{step}": "x"})


def test_processes_may_write_at_once(record: Record) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(str(record.folder), who)) for who in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    found = metrics(record)
    assert len(found) == len(set(found)) == 150
    assert len(record.body()["tags"]) == 100


CHILD = """
import sys, time
from pathlib import Path
from components.config import load_config
from mlflow_tracking.run import start_run
config = load_config(sys.argv[1], ["tracking.system_metrics=false", "tracking.patience=0.1"])
run = start_run("train", config, name="amr", artifacts=Path(sys.argv[2]))
for step in range(int(sys.argv[3])):
    run.log_metrics({"loss": 1.0 / (step + 1)}, step)
print(run.key, flush=True)
time.sleep(float(sys.argv[4]))
run.end()
"""


def _child(tmp_path: Path, steps: int, wait: float) -> "subprocess.Popen[str]":
    words = [sys.executable, "-c", CHILD, str(ROOT / "params.yaml"), str(tmp_path / "artifacts")]
    environment = os.environ | {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}  # nobody answers
    return subprocess.Popen(
        [*words, str(steps), str(wait)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def _key(child: "subprocess.Popen[str]") -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def test_a_killed_run_is_continued_and_an_ended_one_is_not(tmp_path: Path) -> None:
    first = _child(tmp_path, 5, 60)
    key = _key(first)
    first.send_signal(signal.SIGKILL)
    first.wait()
    second = _child(tmp_path, 8, 0)
    assert _key(second) == key
    assert second.wait(60) == 0
    record = Record(tmp_path / "artifacts" / FOLDER / key)
    assert [step for _, step, _ in metrics(record)] == list(range(8))
    assert "resumed" in record.body()["tags"]
    assert record.body()["status"] == "FINISHED"
    third = _child(tmp_path, 1, 0)
    assert _key(third) != key
    third.wait(60)


def test_two_runs_at_once_do_not_mix(tmp_path: Path) -> None:
    children = [_child(tmp_path, 3, 3), _child(tmp_path, 3, 3)]
    keys = [_key(child) for child in children]
    assert len(set(keys)) == 2
    for child, key in zip(children, keys, strict=True):
        assert child.wait(60) == 0
        assert len(metrics(Record(tmp_path / "artifacts" / FOLDER / key))) == 3


def test_secrets_and_long_values() -> None:
    texts = names.texts(
        {
            "db.password": "hunter2",
            "uri": "postgresql://me:hunter2@host/db",
            "aws_secret_access_key": "hunter2",
            "tokens_per_clip": 7,
            "long": "x" * 9000,
        }
    )
    assert "hunter2" not in json.dumps(texts)
    assert texts["uri"] == "postgresql://***@host/db"
    assert len(texts["long"]) == names.PARAM_LIMIT
    assert "9000 characters" in texts["long"]
    assert store.redact("http://a:b@c/d") == "http://***@c/d"


def test_names_follow_the_scheme() -> None:
    assert names.robust("test", "rgb", "pgd20") == "test/robust_acc/pgd20/rgb"
    assert names.robust("val", "both") == "val/robust_acc/both"
    assert names.clean_name("a b/c%d") == "a b/c_d"
