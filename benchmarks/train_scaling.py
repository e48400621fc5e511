"""Clips per second with one and two workers, and what Ray Train costs over plain torch DDP.

The same loop, data, checkpoints and one thread a worker everywhere. Runs take turns, and a run
counts by the median time from one finished epoch to the next (checkpoint and report included).

    python -m benchmarks train_scaling -- [--shards FOLDER] [--repeats 3]
"""

import argparse
import os
import socket
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks._bench import Result, ratio_of, spread
from benchmarks._clips import write_random_shards
from components.config import Config, apply_overrides
from components.models import build_model
from components.training.data import open_data
from components.training.loop import Place, train_epochs
from components.training.memory import keep_freed_memory
from components.training.state import new_state, save_state
from components.training.worker import checkpoint_config, evaluation_threat

OVERHEAD = 1.03
WORLDS = {1: "1 worker", 2: "2 workers"}


def run(args: list[str]) -> Result:
    """Plain DDP and Ray Train on 1 and 2 workers, in turn."""
    parser = argparse.ArgumentParser(prog="train_scaling")
    parser.add_argument("--shards", default="")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4, help="the first one warms up")
    parser.add_argument("--clips", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=10, help="of the training attack")
    parser.add_argument("--batch", type=int, default=64, help="of all workers together")
    options = parser.parse_args(args)
    with tempfile.TemporaryDirectory() as folder:
        shards = options.shards or write_random_shards(Path(folder), options.clips)
        config = _config(options.epochs, options.steps, options.batch)
        reduce: list[float] = []
        periods: dict[str, list[float]] = {
            f"{kind}, {workers}": [] for workers in WORLDS.values() for kind in ("ddp", "ray")
        }
        for turn in range(options.repeats):
            for world, workers in WORLDS.items():
                out = Path(folder) / f"{world}-{turn}"
                out.mkdir()
                periods[f"ddp, {workers}"].append(_plain(config, shards, out, world))
                at = Path(folder) / f"ray-{world}-{turn}"
                periods[f"ray, {workers}"].append(_ray(config, shards, at, world))
            reduce.append(float((out / "all-reduce").read_text()))
        clips = len(open_data(config, shards)[0].dataset)
    faster = ratio_of(periods, "ddp, 1 worker", "ddp, 2 workers")
    overhead = {
        workers: ratio_of(periods, f"ray, {workers}", f"ddp, {workers}")
        for workers in WORLDS.values()
    }
    alone = statistics.median(periods["ddp, 1 worker"])
    predicted = alone / (alone / 2 + statistics.median(reduce))
    return Result(
        name="train_scaling",
        ratio=faster,
        goal=1.8,
        sense=">=",
        sides={
            name: {**spread(values), "clips/s": clips / statistics.median(values)}
            for name, values in periods.items()
        },
        unit="seconds an epoch",
        notes="clips per second of 2 workers over 1, one thread each, same global batch: "
        f"{options.batch} clips, PGD-{options.steps}",
        details={
            "speed-up predicted by the cost model": predicted,
            "all-reduce, seconds an epoch": statistics.median(reduce),
            "Ray Train over plain DDP": overhead,
            "overhead goal": f"<= {OVERHEAD}",
            "overhead holds": overhead["2 workers"] <= OVERHEAD,
            "clips an epoch": clips,
            "cores": os.cpu_count(),
        },
    )


def _config(epochs: int, steps: int, batch: int) -> Config:
    changes: dict[str, Any] = {
        "data.protocol": "custom",
        "data.train_subjects": [1, 3, 5, 7],
        "data.val_subjects": [5],
        "train.epochs": epochs,
        "train.attack.steps": steps,
        "train.batch_size": batch,
        "train.val_clips": 2,
        "train.val_steps": 1,
    }
    return apply_overrides(Config(), changes)


def _plain(config: Config, shards: str, out: Path, world: int) -> float:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spec = (world, port, config.model_dump(mode="json", by_alias=True), shards, str(out))
    mp.spawn(_worker, args=spec, nprocs=world)
    return float((out / "period").read_text())


def _worker(
    rank: int, world: int, port: int, dumped: dict[str, Any], shards: str, out: str
) -> None:
    config = Config.model_validate(dumped)
    torch.set_num_threads(1)
    keep_freed_memory()
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    data, classes = open_data(config, shards, rank=rank, world=world)
    about = checkpoint_config(config, classes)
    torch.manual_seed(config.seed)
    model = build_model({**about["model"], "num_classes": len(classes)})
    state = new_state(model, lr=config.train.lr, weight_decay=0.0, ema=0.0)
    rows = []
    for row in train_epochs(
        state, data, config.train, evaluation_threat(config), seed=0, place=Place(rank)
    ):
        if rank == 0:
            save_state(Path(out) / f"epoch{row['epoch']}", state, about)
        dist.barrier()
        rows.append(row)
    reduce = _all_reduce_seconds(state.model)
    dist.destroy_process_group()
    if rank == 0:
        (Path(out) / "period").write_text(str(_period(rows)))
        (Path(out) / "all-reduce").write_text(str(data.steps() * reduce))


def _all_reduce_seconds(model: torch.nn.Module, times: int = 20) -> float:
    """Median seconds of one all-reduce of a vector as long as the gradient."""
    flat = torch.zeros(sum(p.numel() for p in model.parameters()))
    seconds = []
    for _ in range(times):
        dist.barrier()
        start = time.perf_counter()
        dist.all_reduce(flat)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _ray(config: Config, shards: str, out: Path, workers: int) -> float:
    from pipelines._cluster import cluster
    from pipelines._ray import run_training

    config = apply_overrides(config, {"ray.workers": workers})
    with cluster(config.ray):
        result = run_training(config, name="bench", storage=out / "runs", shards=shards, out=out)
    return _period(result.history)


def _period(rows: list[dict[str, Any]]) -> float:
    """Median seconds from the end of one epoch to the end of the next."""
    ends = [row["finished_at"] for row in rows]
    return statistics.median(b - a for a, b in zip(ends, ends[1:], strict=False))
