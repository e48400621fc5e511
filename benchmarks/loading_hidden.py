"""Is loading hidden? Training steps fed from shards against the same steps on a resident batch.

python -m benchmarks loading_hidden -- [--shards FOLDER]     default: random clips, 16x64x64
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks._bench import Result, ratio_of, spread
from benchmarks._clips import write_random_shards
from components.batch import Batch
from components.config import Config, from_dict, to_dict
from components.models import build_model
from components.training.memory import keep_freed_memory
from components.training.phases import training_threat
from components.training.shard_data import ShardData, open_data
from components.training.step import TrainTarget, train_step

CUSTOM = {"protocol": "custom", "custom": {"subjects": (1, 3, 5, 7)}, "val_subjects": (5,)}


def run(args: list[str]) -> Result:
    """Blocks of steps with and without loading, in turn; seconds a step of each."""
    parser = argparse.ArgumentParser(prog="loading_hidden")
    parser.add_argument("--shards", default="")
    parser.add_argument("--repeats", type=int, default=7, help="blocks of each kind")
    parser.add_argument("--steps", type=int, default=6, help="steps in a block")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(args)
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as the training workers do
    with tempfile.TemporaryDirectory() as folder:
        shards = options.shards or write_random_shards(Path(folder), 432)
        config = from_dict({"data": CUSTOM, "train": {"batch_size": options.batch}})
        data, classes = open_data(config, shards)
        step = _step(config, len(classes))
        times: dict[str, list[float]] = {"loaded": [], "resident": []}
        for turn in range(options.repeats + 1):
            loaded = _loaded(data, step, options.steps, epoch=turn)
            resident = _resident(data, step, options.steps)
            if turn:  # the first turn warms up
                times["loaded"].append(loaded)
                times["resident"].append(resident)
    return Result(
        name="loading_hidden",
        ratio=ratio_of(times, "loaded", "resident"),
        goal=1.02,
        sense="<=",
        sides={name: spread(values) for name, values in times.items()},
        unit="seconds a step",
        notes=f"PGD-{config.train.attack.steps} training step with loading over the same on a "
        f"resident batch of {options.batch}, {'given' if options.shards else 'random'} clips",
        details={"clips": len(data.dataset), "steps a block": options.steps},
    )


def _step(config: Config, classes: int) -> Callable[[Batch], object]:
    torch.manual_seed(0)
    dumped = to_dict(config.model)
    module = build_model({**dumped, "num_classes": classes}).train()
    target = TrainTarget(module, module, torch.optim.AdamW(module.parameters(), lr=1e-4))
    threat, train = training_threat(config.train.attack), config.train
    return lambda batch: train_step(target, batch, threat, train, seed=0)


def _loaded(data: ShardData, step: Callable[[Batch], object], steps: int, epoch: int) -> float:
    """Seconds a step; the first batch is loaded before, as it is behind the step before it."""
    stream = iter(data.train(epoch))
    batch, _ = next(stream)
    start = time.perf_counter()
    for _ in range(steps):
        step(batch)
        batch, _ = next(stream)
    return (time.perf_counter() - start) / steps


def _resident(data: ShardData, step: Callable[[Batch], object], steps: int) -> float:
    batch, _ = next(iter(data.train(0)))
    start = time.perf_counter()
    for _ in range(steps):
        step(batch)
    return (time.perf_counter() - start) / steps
