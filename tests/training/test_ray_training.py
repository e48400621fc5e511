"""Real runs on Ray Train: what is killed ends with the same bits, what cannot go on says why."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from components.checkpoint import load_model, read_config
from components.config import Config, to_dict
from pipelines._cluster import cluster
from pipelines._progress import Event, ProgressCallback, progress_channel
from pipelines._ray import TrainResult, run_training
from pipelines._stage import ROOT, StageError

pytestmark = pytest.mark.slow
CHANGES = {"train__ema": 0.9, "train__attack__modalities": "mix", "tracking__uri": "sqlite://"}


def train(
    config: Config, shards: str, folder: Path, on_event: Callable[[Event], None] = lambda e: None
) -> TrainResult:
    with cluster(config.ray), progress_channel(on_event) as channel:
        return run_training(
            config,
            name="run",
            storage=folder / "runs",
            shards=shards,
            out=folder,
            callbacks=[ProgressCallback(channel)],
            progress=channel,
        )


def weights(folder: Path) -> tuple[str, str]:
    return tuple(read_config(folder / kind)["weights_sha256"] for kind in ("best", "last"))


@pytest.fixture(scope="module")
def calm(settings, shards, tmp_path_factory) -> Path:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("calm")
    result = train(settings(**CHANGES), shards, folder)
    (folder / "history.json").write_text(json.dumps(result.history))
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4]
    assert not (folder / "runs" / "run").exists()
    return folder


def test_best_and_last_can_be_loaded(calm):
    for kind in ("best", "last"):
        model, about = load_model(calm / kind)
        assert about["classes"] == [1, 2, 3] and not model.training


def test_best_is_the_checkpoint_of_the_highest_rank(calm):
    history = json.loads((calm / "history.json").read_text())
    best = max(history, key=lambda row: row["rank"])
    assert read_config(calm / "best")["epoch"] == best["epoch"]
    assert read_config(calm / "last")["epoch"] == 4


def test_killed_worker_ends_with_the_same_weights(calm, settings, shards, tmp_path):
    killed = threading.Event()
    events: list[str] = []
    arenas: list[str | None] = []

    def kill_in_second_epoch(event: Event) -> None:
        events.append(event["kind"])
        if event["kind"] == "epoch" and not killed.is_set():
            killed.set()
            mine = psutil.Process().children(recursive=True)
            workers = [p for p in mine if "RayTrainWorker" in " ".join(p.cmdline())]
            # As the process started: set later, glibc would not see it.
            arenas.append(workers[-1].environ().get("MALLOC_ARENA_MAX"))
            workers[-1].send_signal(signal.SIGKILL)

    result = train(settings(**CHANGES), shards, tmp_path, kill_in_second_epoch)
    assert killed.is_set()
    assert arenas == ["1"]
    assert "lost" in events
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4]
    assert weights(tmp_path) == weights(calm)


@pytest.mark.parametrize("where", ["a folder", "an object store"])
def test_killed_driver_goes_on_where_it_was(
    where, calm, settings, shards, tmp_path, request, files_in
):
    artifacts = tmp_path / "artifacts"
    storage = str(artifacts / "runs")
    if where == "an object store":
        storage = request.getfixturevalue("bucket").format("of")
    shutil.copytree(shards, artifacts / "shards")
    config = settings(
        **{**CHANGES, "tracking__uri": f"sqlite:///{tmp_path}/mlflow.db"},
        paths__artifacts=str(artifacts),
        ray__storage=storage if "://" in storage else "",
    )
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump(to_dict(config)))
    command = [sys.executable, "-m", "pipelines.train", "--params", str(params)]
    said = tmp_path / "said"
    quiet = {"cwd": ROOT, "stdout": said.open("w"), "stderr": subprocess.STDOUT}
    first = subprocess.Popen(command, **quiet)
    log = artifacts / "train" / config.run / "train.log"
    while not any("checkpoint_manager_snapshot.json" in path for path in files_in(storage)):
        assert first.poll() is None, said.read_text()
        time.sleep(0.02)
    first.kill()
    first.wait()
    shutil.rmtree(log.parent)  # as `dvc repro` does before it runs a stage again
    subprocess.run(command, **quiet, check=True)
    assert "epoch 1/4" not in log.read_text()  # the first epoch was not trained again
    assert weights(log.parent) == weights(calm)
    metrics = json.loads((log.parent / "metrics.json").read_text())
    assert metrics["epochs"] == 4 and 0.0 <= metrics["robust_acc"]["worst"] <= 1.0
    history = (log.parent / "history.csv").read_text().splitlines()
    assert len(history) == 5 and history[0].startswith("epoch,loss,")
    assert not files_in(storage)


def test_nonfinite_loss_stops_with_the_clips_saved_and_is_not_retried(settings, shards, tmp_path):
    lost: list[Event] = []
    config = settings(train__lr=1e30, train__method="natural")
    with pytest.raises(StageError, match=r"not finite .*nonfinite_rank\*\.json"):
        train(config, shards, tmp_path, lambda e: lost.append(e) if e["kind"] == "lost" else None)
    saved = sorted((tmp_path / "runs" / "run").glob("nonfinite_rank*.json"))
    assert [path.name for path in saved] == ["nonfinite_rank0.json", "nonfinite_rank1.json"]
    clips = [clip for path in saved for clip in json.loads(path.read_text())["clip_ids"]]
    assert len(set(clips)) == 8 and all(clip.startswith("S0") for clip in clips)
    assert not lost


def test_what_a_retry_cannot_mend_is_tried_once(settings, shards, tmp_path):
    broken = tmp_path / "shards"
    shutil.copytree(shards, broken)
    (broken / "shard-000000.arrow").write_bytes(b"not arrow")
    with pytest.raises(StageError, match="shard-000000.arrow has 9 bytes.*to go on"):
        train(settings(), str(broken), tmp_path)
    assert os.path.isdir(tmp_path / "runs" / "run")


def test_more_workers_than_the_machine_has_are_refused_at_once(settings, shards, tmp_path):
    with pytest.raises(StageError, match=r"64 workers .* set ray.workers"):
        train(settings(ray__workers=64), shards, tmp_path)


def test_an_elastic_run_takes_the_workers_there_is_room_for(settings, shards, tmp_path):
    config = settings(ray__workers=1, ray__max_workers=2, train__epochs=2)
    result = train(config, shards, tmp_path)
    assert [row["epoch"] for row in result.history] == [1, 2, 3]
    model, _ = load_model(result.best)
    assert not model.training
