"""Starting and joining a Ray: what it is given, and what is said when there is none."""

import contextlib
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from components.config import load_config
from components.config.train import RaySection
from components.errors import UserError
from components.shards.storage import open_store
from pipelines import _cluster
from pipelines._cluster import Cluster, cluster, parallel
from pipelines._ray import run_storage
from pipelines._stage import ROOT, StageError


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `ray.init` is called with; none is started."""
    given: dict[str, Any] = {}
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **words: given.update(words))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(_cluster, "_cpus", lambda: 1)
    return given


def test_a_local_ray_counts_the_cpus_itself(started: dict[str, Any]) -> None:
    """`os.cpu_count()` is the machine's, whatever a container may use of it."""
    with cluster(RaySection()):
        assert started["address"] == "local" and "num_cpus" not in started


@pytest.mark.parametrize("form", ["{}", "ray://{}"])
@pytest.mark.parametrize("by", ["setting", "environment"])
def test_an_address_where_nobody_listens_is_named_within_seconds(
    started: dict[str, Any], monkeypatch: pytest.MonkeyPatch, form: str, by: str
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = form.format(f"127.0.0.1:{free.getsockname()[1]}")
    if by == "environment":
        monkeypatch.setenv("RAY_ADDRESS", address)
    section = RaySection(address=address if by == "setting" else "")
    begun = time.monotonic()
    with pytest.raises(StageError, match=r"nobody listens at .*ray start --head"):
        with cluster(section):
            pass
    assert not started and time.monotonic() - begun < 30


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_port_of_something_else_is_named_within_seconds(
    started: dict[str, Any], answer: bytes
) -> None:
    """Ray's client would try a mute port, or the dashboard's, for minutes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for _ in range(2):  # who asks whether anybody listens, and who asks what it is
                connection, _ = server.accept()
                held.append(connection)
                with contextlib.suppress(OSError):
                    connection.sendall(answer)

        held: list[socket.socket] = []
        threading.Thread(target=serve, daemon=True).start()
        begun = time.monotonic()
        with pytest.raises(StageError, match="is no Ray head"):
            with cluster(RaySection(address=f"127.0.0.1:{server.getsockname()[1]}")):
                pass
        assert not started and time.monotonic() - begun < 30


@pytest.mark.parametrize("by", ["uri", "environment"])
def test_a_store_that_does_not_answer_is_named_within_seconds(
    monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    uri = "s3://KEY:secret@bucket/x"
    if by == "uri":
        uri += f"?endpoint_override={host}&scheme=http"
    else:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}")
    begun = time.monotonic()
    with pytest.raises(UserError, match=f"nobody listens at http://{host}") as told:
        open_store(uri, create=True)
    assert "secret" not in str(told.value) and time.monotonic() - begun < 30


def test_waiting_tasks_are_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers = iter([[], ["first"]])
    monkeypatch.setattr(ray, "remote", lambda f: SimpleNamespace(options=lambda **k: task))
    monkeypatch.setattr(ray, "wait", lambda refs, **k: (next(answers), refs))
    monkeypatch.setattr(_cluster, "_result", lambda ref, item, lost: item)
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
