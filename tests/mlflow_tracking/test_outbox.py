"""The journal on disk: nothing lost, nothing double, whoever writes and whatever is killed."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlflow_tracking import names, store
from mlflow_tracking.outbox import Outbox
from mlflow_tracking.run import attach, start_run
from mlflow_tracking.store import ROOT


@pytest.fixture
def box(tmp_path: Path) -> Outbox:
    return Outbox.create(tmp_path, "train", {"name": "n", "tags": {}, "experiment": "e"})


def metrics(box: Outbox) -> list[tuple[str, int, float]]:
    return [
        (key, event["step"], value)
        for event, _ in box.events(0)
        if event["kind"] == "metrics"
        for key, value in event["values"].items()
    ]


def test_the_first_value_of_a_step_stands(box: Outbox) -> None:
    box.append_metrics({"loss": 1.0}, 1)
    Outbox(box.folder).append_metrics({"loss": 2.0, "acc": 0.5}, 1)  # a worker that restarted
    box.append_metrics({"loss": 3.0}, 2)
    assert metrics(box) == [("loss", 1, 1.0), ("acc", 1, 0.5), ("loss", 2, 3.0)]


def test_values_that_are_not_finite_stay_on_disk_only(box: Outbox) -> None:
    box.append_metrics({"loss": float("nan"), "acc": float("inf"), "ok": 1.0}, 0)
    event = next(box.events(0))[0]
    assert event["values"] == {"ok": 1.0}
    assert event["not_finite"] == {"loss": "nan", "acc": "inf"}


def test_half_a_line_is_no_event(box: Outbox) -> None:
    box.append("tags", values={"a": "1"})
    with box.journal.open("a") as file:
        file.write('{"kind": "tags", "val')
    assert box.pending() == 1
    box.append("tags", values={"b": "2"})
    kinds = [event["kind"] for event, _ in box.events(0)]
    assert kinds == ["tags", "torn", "tags"]
    assert box.pending() == 2


def test_an_artifact_is_kept_as_it_was(box: Outbox, tmp_path: Path) -> None:
    file = tmp_path / "best" / "deep" / "model.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"first")
    box.append_file(tmp_path / "best", "checkpoint")
    file.write_bytes(b"second")
    event = next(box.events(0))[0]
    assert event["folder"] == "checkpoint/best/deep"
    assert (box.folder / event["file"]).read_bytes() == b"first"


def _write(folder: str, who: int) -> None:
    box = Outbox(Path(folder))
    for step in range(50):
        box.append_metrics({f"m{who}": float(step), "shared": float(step)}, step)


def test_processes_may_write_at_once(box: Outbox) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(str(box.folder), who)) for who in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    found = metrics(box)
    assert len(found) == len(set(found)) == 150


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
    box = Outbox(tmp_path / "artifacts" / "mlflow_outbox" / key)
    assert [step for _, step, _ in metrics(box)] == list(range(8))
    third = _child(tmp_path, 1, 0)
    assert _key(third) != key
    third.wait(60)


def test_two_runs_at_once_do_not_mix(tmp_path: Path) -> None:
    children = [_child(tmp_path, 3, 3), _child(tmp_path, 3, 3)]
    keys = [_key(child) for child in children]
    assert len(set(keys)) == 2
    for child, key in zip(children, keys, strict=True):
        assert child.wait(60) == 0
        assert len(metrics(Outbox(tmp_path / "artifacts" / "mlflow_outbox" / key))) == 3


def test_a_worker_appends_to_the_drivers_run(project: Any) -> None:
    with start_run("train", project.config, name="amr", artifacts=project.artifacts) as run:
        attach(project.artifacts, run.key).log_metrics({"loss": 1.0}, 3)
        assert metrics(run.box) == [("loss", 3, 1.0)]
    with pytest.raises(ValueError, match="holds no run"):
        attach(project.artifacts, "nothing")


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
