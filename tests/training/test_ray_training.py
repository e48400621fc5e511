"""Real runs on Ray Train: what is killed ends with the same bits, what cannot go on says why."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from components.checkpoint import load_model, read_config
from components.config import Config
from pipelines._cluster import cluster
from pipelines._progress import Relay, listening
from pipelines._ray import run_training
from pipelines._stage import ROOT

pytestmark = pytest.mark.slow


def weights(folder: Path) -> str:
    return read_config(folder)["weights_sha256"]


def kill_one_worker() -> None:
    mine = psutil.Process().children(recursive=True)
    workers = [p for p in mine if "RayTrainWorker" in " ".join(p.cmdline())]
    workers[-1].send_signal(signal.SIGKILL)


def train(config: Config, shards: str, folder: Path, on_event: Callable[[dict], None]) -> Path:
    with cluster(config.ray), listening(on_event) as board:
        result = run_training(
            config,
            name="run",
            storage=folder / "runs",
            shards=shards,
            out=folder,
            callbacks=[Relay(board)],
            board=board,
        )
    assert [row["epoch"] for row in result.history] == [1, 2, 3]
    return result.last


def test_killed_worker_and_killed_driver_end_with_the_same_weights(shards, settings, tmp_path):
    config = settings(train__ema=0.9, train__attack__modalities="mix")
    killed = threading.Event()
    events: list[str] = []

    def kill_in_second_epoch(event: dict) -> None:
        events.append(event["kind"])
        if event["kind"] == "epoch" and event["epoch"] == 1 and not killed.is_set():
            killed.set()
            kill_one_worker()

    calm = train(config, shards, tmp_path / "calm", lambda event: None)
    hurt = train(config, shards, tmp_path / "hurt", kill_in_second_epoch)
    assert killed.is_set()
    assert "lost" in events
    assert weights(hurt) == weights(calm)
    model, about = load_model(calm)
    assert about["classes"] == [1, 2, 3] and not model.training
    assert not (tmp_path / "calm" / "runs" / "run").exists()
