"""Starting and joining a Ray: what it is given, and what is said when there is none."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from components.config import load_config
from pipelines import _tasks
from pipelines._ray import run_storage
from pipelines._stage import ROOT
from pipelines._tasks import Cluster, parallel


def test_waiting_tasks_are_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers = iter([[], ["first"]])
    monkeypatch.setattr(ray, "remote", lambda f: SimpleNamespace(options=lambda **k: task))
    monkeypatch.setattr(ray, "wait", lambda refs, **k: (next(answers), refs))
    monkeypatch.setattr(_tasks, "_result", lambda ref, item, lost: item)
    task = SimpleNamespace(remote=lambda item: "first")
    assert list(parallel(Cluster(2, own=True), len, ["a"], describe="index")) == ["a"]
    assert "index: no task has ended for 300 s; 1 run or wait for one of 2 CPUs" in caplog.text


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("~/runs", "{home}/runs"),
        ("runs", f"{ROOT}/runs"),
        ("/shared/my runs#1?50%", "/shared/my runs#1?50%"),
        ("", "artifacts/runs"),
        ("s3://bucket/runs", "s3://bucket/runs"),
    ],
)
def test_run_storage_as_people_write_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, expected: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = load_config(ROOT / "params.yaml", [f"ray.storage={written}"] if written else [])
    assert run_storage(config, Path("artifacts")) == expected.format(home=tmp_path)
