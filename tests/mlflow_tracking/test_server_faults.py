"""Faults against a real tracking server: PostgreSQL, an S3 store, `mlflow server` on loopback."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from mlflow import MlflowClient

from components.config import Config, apply_overrides
from mlflow_tracking import store
from mlflow_tracking.publish import pending
from mlflow_tracking.run import Run, start_run
from pipelines import register, sync

pytestmark = pytest.mark.slow


class Site:
    """A database and an S3 store that stay, and a tracking server that comes and goes."""

    def __init__(self, servers: ModuleType, folder: Path) -> None:
        self.servers, self.folder = servers, folder
        self.database = servers.start_postgres(folder)
        self.s3 = servers.start_s3(folder)
        servers.make_bucket(self.s3.url, servers.TRY_OUT)
        self.port = servers.free_port()
        self.mlflow: Any = None

    def up(self) -> str:
        self.mlflow = self.servers.start_mlflow(
            self.folder, self.database.url, self.s3.url, self.servers.TRY_OUT, self.port
        )
        return str(self.mlflow.url)

    def kill(self) -> None:
        self.mlflow.stop(signal.SIGKILL)

    def close(self) -> None:
        for service in (self.mlflow, self.s3, self.database):
            service.stop()


@pytest.fixture(scope="module")
def site(servers: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    try:
        servers.postgres_program("initdb")
    except servers.MissingProgram as error:
        # Where the tests are a promise they must not shrink in silence.
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{error} (these tests run against a real PostgreSQL)")
    # PostgreSQL's own user must be able to enter the folder, which pytest's is closed to.
    folder = Path(servers.shared_folder(tmp_path_factory.mktemp("site").name))
    found = Site(servers, folder)
    found.up()
    yield found
    found.close()
    shutil.rmtree(folder)


@pytest.fixture
def config(site: Site, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{site.port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    # A machine that tests run on may be slow; a server that is away is not waited for.
    return apply_overrides(Config(), {"tracking.system_metrics": False, "tracking.patience": 60.0})


def client(site: Site) -> MlflowClient:
    return MlflowClient(f"http://127.0.0.1:{site.port}")


def history(site: Site, run_id: str, key: str) -> list[int]:
    return sorted(point.step for point in client(site).get_metric_history(run_id, key))


def until(condition: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_server_dies_in_the_middle_and_comes_back(
    site: Site, config: Config, tmp_path: Path
) -> None:
    run = start_run("train", config, name="outage", artifacts=tmp_path)
    run.log_metrics({"val/clean_acc": 0.1}, 0)
    until(lambda: not pending(run.record))
    site.kill()
    started = time.monotonic()
    for step in range(1, 40):
        run.log_metrics({"val/clean_acc": step / 40}, step)
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "weights.bin").write_bytes(os.urandom(1 << 16))
    run.log_artifact(tmp_path / "best", "checkpoint")
    assert time.monotonic() - started < 30  # training does not wait
    assert pending(run.record)
    site.up()
    for step in range(40, 60):
        run.log_metrics({"val/clean_acc": step / 60}, step)
    until(lambda: not pending(run.record))
    assert run.end()
    assert run.run_id is not None
    assert history(site, run.run_id, "val/clean_acc") == list(range(60))
    found = client(site).get_run(run.run_id)
    assert found.info.status == "FINISHED"
    copy = client(site).download_artifacts(run.run_id, "checkpoint/best/weights.bin", str(tmp_path))
    assert Path(copy).read_bytes() == (tmp_path / "best" / "weights.bin").read_bytes()


def test_what_was_sent_twice_is_there_once(site: Site, config: Config, tmp_path: Path) -> None:
    run = start_run("train", config, name="twice", artifacts=tmp_path)
    for step in range(20):
        run.log_metrics({"loss": 1 / (step + 1), "acc": 0.5}, step)
    run.log_text("hello", "note.txt")
    assert run.end()
    run_id = run.run_id
    assert run_id is not None
    # As if a kill had come after the server took it all and before that was noted, twice.
    for forgotten in ({"run_id": None}, {"run_id": run_id}):
        uri = store.redact(f"http://127.0.0.1:{site.port}")
        run.record.save_published({"uri": uri, **forgotten})
        assert sync.run_stage("sync", sync.main, [f"paths.artifacts={tmp_path}"]) == 0
        assert run.run_id == run_id
        assert history(site, run_id, "loss") == list(range(20))
        assert history(site, run_id, "acc") == list(range(20))


def test_it_never_comes_back_and_sync_sends_later(
    site: Site, config: Config, tmp_path: Path
) -> None:
    site.kill()
    try:
        started = time.monotonic()
        config = apply_overrides(config, {"tracking.patience": 1.0})
        with start_run("tune", config, name="search", artifacts=tmp_path) as parent:
            with start_run(
                "tune", config, name="trial 1", artifacts=tmp_path, parent=parent.key
            ) as trial:
                trial.log_metrics({"val/clean_acc": 0.4}, 1)
        assert time.monotonic() - started < 120
        assert parent.run_id is None
        words = [f"paths.artifacts={tmp_path}"]
        assert sync.run_stage("sync", sync.main, words) == 2
    finally:
        site.up()
    assert sync.run_stage("sync", sync.main, words) == 0
    runs = {key: client(site).get_run(run.run_id or "") for key, run in
            {"parent": parent, "trial": trial}.items()}  # fmt: skip
    assert runs["trial"].data.tags["mlflow.parentRunId"] == runs["parent"].info.run_id
    assert runs["trial"].data.metrics == {"val/clean_acc": 0.4}
    assert runs["trial"].info.status == "FINISHED"
    assert runs["trial"].info.end_time - runs["trial"].info.start_time < 120_000


def test_two_runs_at_once_do_not_mix(site: Site, config: Config, tmp_path: Path) -> None:
    runs: dict[int, Run] = {}

    def train(number: int) -> None:
        with start_run("train", config, name="same", artifacts=tmp_path / str(number)) as run:
            runs[number] = run
            for step in range(30):
                run.log_metrics({"loss": number + step / 100}, step)

    threads = [threading.Thread(target=train, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, run in runs.items():
        points = client(site).get_metric_history(run.run_id or "", "loss")
        assert sorted(p.value for p in points) == [number + step / 100 for step in range(30)]


RESTARTED = """
import os, signal, sys
from pathlib import Path
from components.config import Config, apply_overrides
from mlflow_tracking.run import start_run
config = apply_overrides(Config(), {"tracking.system_metrics": False})
run = start_run("train", config, name="restarted", artifacts=Path(sys.argv[1]))
for step in range(int(sys.argv[2]), int(sys.argv[3])):
    run.log_metrics({"loss": float(step)}, step)
if sys.argv[4] == "die":
    run.publish()
    os.kill(os.getpid(), signal.SIGKILL)
assert run.end()
print(run.run_id)
"""


def test_a_killed_driver_goes_on_in_the_same_run(
    site: Site, config: Config, tmp_path: Path
) -> None:
    def drive(first: int, last: int, end: str) -> "subprocess.CompletedProcess[str]":
        words = [sys.executable, "-c", RESTARTED, str(tmp_path), str(first), str(last), end]
        return subprocess.run(
            words, cwd=store.ROOT, capture_output=True, text=True, check=False, timeout=300
        )

    assert drive(0, 10, "die").returncode == -signal.SIGKILL
    done = drive(6, 20, "end")  # from the checkpoint of step 5 on
    assert done.returncode == 0, done.stderr
    run_id = done.stdout.split()[-1]
    assert history(site, run_id, "loss") == list(range(20))
    found = client(site).search_runs(
        [client(site).get_run(run_id).info.experiment_id],
        "attributes.run_name = 'train restarted'",
    )
    assert [run.info.run_id for run in found] == [run_id]


def test_the_registry_is_away_and_sync_registers_later(
    site: Site, config: Config, project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{site.port}")
    words = [*project.words, "tracking.patience=1.0", "register.name=later"]
    site.kill()
    try:
        assert register.run_stage("register", register.main, words) == 0
        assert register.postponed(project.artifacts)
    finally:
        site.up()
    assert sync.run_stage("sync", sync.main, words) == 0
    assert not register.postponed(project.artifacts)
    version = client(site).get_model_version_by_alias("later", "champion")
    assert version.version in (1, "1")
    # Weights went to the S3 store through the server: the client has no credentials for it.
    assert "MLFLOW_S3_ENDPOINT_URL" not in os.environ
    from mlflow_tracking.registry import fetch

    place = project.artifacts / "fetched"
    place.mkdir()
    checkpoint, _ = fetch(f"http://127.0.0.1:{site.port}", "models:/later@champion", place)
    best = project.artifacts / "train" / "amr-s0" / "best" / "model.safetensors"
    assert (checkpoint / "model.safetensors").read_bytes() == best.read_bytes()
