"""Serving: a clip through `mlflow models serve` over HTTP against the same call in process.

    make bench NAME=serve_latency BENCH_ARGS="-- --requests 40 --clients 4"

Sides, on one clip of the bundled sample, run in turn: the model alone on ready arrays, the whole
way from a raw clip in process, a raw clip over HTTP, ready arrays over HTTP. `ratio` is HTTP
against in-process for the raw clip (median of the pairs): what the server and its JSON add.
Throughput is measured apart, with several clients at once.
"""

import argparse
import base64
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import torch

from benchmarks._bench import Result, paired, ratio_of
from components.checkpoint import save_checkpoint
from components.config import Config, to_dict
from components.models import build_model
from components.ntu.crop import MARGIN
from components.sample.generate import write_sample
from components.sample.plan import Style
from components.sources import get_source
from mlflow_tracking import registry, store
from mlflow_tracking.serving import Predictor

GOAL = 2.0
CLASSES = 60


def run(args: list[str]) -> Result:
    """Both sides of one clip, and the throughput of the server."""
    parser = argparse.ArgumentParser(prog="serve_latency")
    parser.add_argument("--requests", type=int, default=20, help="of each side")
    parser.add_argument("--clients", type=int, default=4, help="at once, for the throughput")
    options = parser.parse_args(args)
    with tempfile.TemporaryDirectory(prefix="serve-") as temporary:
        folder = Path(temporary)
        video, skeleton = _clip(folder / "data")
        predictor, uri = _register(folder)
        raw = {
            "video_base64": base64.b64encode(video.read_bytes()).decode(),
            "skeleton_text": skeleton.read_text(),
        }
        batch = predictor.prepare_request(**raw).batch
        arrays = {
            "rgb": batch.rgb[0].tolist(),
            "skeleton": batch.skeleton[0].tolist(),
            "present": batch.present[0].int().tolist(),
        }
        with _server(folder, uri) as url, requests.Session() as session:
            sides: dict[str, Callable[[], Any]] = {
                "model alone, in process": lambda: predictor.predict(batch),
                "raw clip, in process": lambda: predictor.predict(
                    predictor.prepare_request(**raw).batch
                ),
                "raw clip, HTTP": lambda: _post(session, url, raw),
                "arrays, HTTP": lambda: _post(session, url, arrays),
            }
            times = paired(sides, repeats=options.requests)
            rate = _throughput(url, raw, options.requests, options.clients)
    size = Path(video).name
    return Result(
        name="serve_latency",
        ratio=ratio_of(times, "raw clip, HTTP", "raw clip, in process"),
        goal=GOAL,
        sense="<=",
        unit="ms",
        sides={side: _quantiles(seconds) for side, seconds in times.items()}
        | {f"raw clips, HTTP, {options.clients} clients": {"clips_per_s": rate}},
        notes=f"one sample clip ({size}), default model untrained, {CLASSES} classes; ms",
        details={"requests": options.requests, "video_bytes": len(raw["video_base64"]) * 3 // 4},
    )


def _clip(folder: Path) -> tuple[Path, Path]:
    style = Style(seed=0, subjects=2, width=320, height=180, frames=(24, 40))
    write_sample(folder, style, 1, dirty=False, workers=1)
    found = get_source("ntu").find(folder).clips[0]
    return folder / found.video, folder / found.skeleton


def _register(folder: Path) -> tuple[Predictor, str]:
    """A model of the default settings in a registry of its own; training changes no latency."""
    from mlflow import MlflowClient

    config = Config()
    spec = to_dict(config.model)
    about = {"model": spec, "num_classes": CLASSES, "classes": list(range(1, CLASSES + 1))}
    torch.manual_seed(0)
    model = build_model({**spec, "num_classes": CLASSES})
    checkpoint = save_checkpoint(folder / "best", model, about)
    section = config.shard
    shards = {
        "source": "ntu",
        "unit": "metres",
        "codec": section.codec,
        "jpeg_quality": 0,
        "frames": section.frames,
        "size": section.size,
        "margin": MARGIN,
    }
    evaluation = folder / "amr.json"
    evaluation.write_text(json.dumps({"model": "amr"}))
    uri = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(uri, uri)
    logged = client.create_logged_model(store.experiment_id(client, uri, "serve_latency"), "amr")
    version = registry.add_version(
        registry.Candidate("amr", checkpoint, evaluation, folder / "none", shards),
        name="amr",
        model_id=logged.model_id,
        uri=uri,
        card="",
        facts={},
        config=about,
        tags={},
    )
    client.set_registered_model_alias("amr", registry.CHAMPION, version)
    return Predictor.of_checkpoint(checkpoint, shards), uri


@contextmanager
def _server(folder: Path, uri: str) -> Iterator[str]:
    """`mlflow models serve -m models:/amr@champion`; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "serve.log"
    words = ["models", "serve", "-m", "models:/amr@champion", "--env-manager", "local"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words, "-h", "127.0.0.1", "-p", str(port)],
            cwd=folder,
            env=os.environ | {"MLFLOW_TRACKING_URI": uri, "PATH": path},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 300
        while not _answers(f"http://127.0.0.1:{port}/ping"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False


def _post(session: requests.Session, url: str, row: dict[str, Any]) -> None:
    session.post(url, json={"dataframe_records": [row]}, timeout=120).raise_for_status()


def _throughput(url: str, row: dict[str, Any], count: int, clients: int) -> float:
    """Raw clips a second with `clients` connections at once."""

    def client(_: int) -> None:
        with requests.Session() as session:
            for _ in range(count):
                _post(session, url, row)

    with ThreadPoolExecutor(clients) as pool:
        start = time.perf_counter()
        list(pool.map(client, range(clients)))
        return clients * count / (time.perf_counter() - start)


def _quantiles(seconds: list[float]) -> dict[str, float | int]:
    cuts = statistics.quantiles(seconds, n=20, method="inclusive")
    return {
        "p50_ms": 1000 * statistics.median(seconds),
        "p95_ms": 1000 * cuts[18],
        "clips_per_s": len(seconds) / sum(seconds),
        "n": len(seconds),
    }
