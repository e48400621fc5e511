"""One side of `train_scaling`: training by plain torch DDP or by Ray Train, epoch after epoch.

python -m benchmarks._scaling_side KIND WORKERS CONFIG SHARDS FOLDER   # with $ENDS, see `_turns`
"""

import json
import os
import socket
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from ray.train import Checkpoint, UserCallback

from components.config import Config, apply_overrides, from_dict
from components.evaluation.piece import threat_of
from components.models import build_model
from components.training.loop import WorkerContext, train_epochs
from components.training.memory import keep_freed_memory
from components.training.shard_data import open_data
from components.training.state import new_state, save_state
from components.training.worker import checkpoint_config


class Tell(UserCallback):
    """Writes, from Ray's controller, when each epoch was done."""

    def __init__(self, ends: str) -> None:
        self.ends = ends

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None
    ) -> None:
        """Called once all workers have reported an epoch."""
        _tell(self.ends, metrics[0])


def _tell(ends: str, row: dict[str, Any]) -> None:
    with Path(ends).open("a") as file:
        file.write(f"{row['finished_at']}\n")


def by_ray(workers: int, ends: str, config: Config, shards: str, folder: str) -> None:
    """The train stage's run, without its progress bar."""
    from pipelines._cluster import cluster
    from pipelines._ray import run_training

    config = apply_overrides(config, {"ray.workers": workers})
    out = Path(folder)
    with cluster(config.ray):
        run_training(
            config,
            name="bench",
            storage=out / "runs",
            shards=shards,
            out=out,
            callbacks=[Tell(ends)],
        )


def by_ddp(workers: int, ends: str, config: Config, shards: str, folder: str) -> None:
    """The same loop, data and checkpoints in processes that torch starts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_worker, args=(workers, port, config, shards, folder, ends), nprocs=workers)


def _worker(
    rank: int, world: int, port: int, config: Config, shards: str, folder: str, ends: str
) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    data, classes = open_data(config, shards, rank=rank, world=world)
    about = checkpoint_config(config, classes)
    torch.manual_seed(config.seed)
    model = build_model({**about["model"], "num_classes": len(classes)})
    state = new_state(model, lr=config.train.lr, weight_decay=0.0, ema=0.0)
    reduce = data.steps() * _all_reduce_seconds(model)
    if rank == 0:
        facts = {"all_reduce": reduce, "clips": len(data.dataset)}
        Path(folder, "facts.json").write_text(json.dumps(facts))
    place = WorkerContext(rank)
    threat = threat_of(config.threat)
    for row in train_epochs(state, data, config.train, threat, seed=0, worker=place):
        if rank == 0:
            save_state(Path(folder, f"epoch{row['epoch']}"), state, about)
        dist.barrier()
        if rank == 0:
            _tell(ends, row)
    dist.destroy_process_group()


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


if __name__ == "__main__":
    kind, workers, settings, shards, folder = sys.argv[1:]
    train = {"ddp": by_ddp, "ray": by_ray}[kind]
    train(int(workers), os.environ["ENDS"], from_dict(json.loads(settings)), shards, folder)
