"""Clips per second with one and two workers, and what Ray Train costs over plain torch DDP.

The same loop, data, checkpoints and one thread a worker everywhere. All four sides are alive and
take turns in slices of six seconds (`_turns.py`), so that they meet the same machine. A run counts
by the time from one finished epoch to the next, checkpoint and report included.

    python -m benchmarks train_scaling -- [--shards FOLDER] [--epochs 8]
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks._bench import Result, ratio_of, spread
from benchmarks._clips import write_random_shards
from benchmarks._turns import started, take_turns
from components.config import Config, apply_overrides, to_dict

OVERHEAD = 1.03
WORLDS = {1: "1 worker", 2: "2 workers"}
EPOCHS_BESIDE = 8  # of a side's start, and what it may be ahead of the others


def run(args: list[str]) -> Result:
    """Plain DDP and Ray Train on 1 and 2 workers, in turns."""
    parser = argparse.ArgumentParser(prog="train_scaling")
    parser.add_argument("--shards", default="")
    parser.add_argument(
        "--epochs", type=int, default=8, help="of each side, after two that warm up"
    )
    parser.add_argument("--clips", type=int, default=2048, help="made if there are no --shards")
    parser.add_argument("--steps", type=int, default=10, help="of the training attack")
    parser.add_argument("--batch", type=int, default=64, help="of all workers together")
    options = parser.parse_args(args)
    with tempfile.TemporaryDirectory() as folder:
        shards = options.shards or write_random_shards(Path(folder), options.clips)
        config = _config(options.epochs + EPOCHS_BESIDE, options.steps, options.batch)
        commands = {}
        for world, workers in WORLDS.items():
            for kind in ("ddp", "ray"):
                out = Path(folder) / f"{kind}{world}"
                out.mkdir()
                commands[f"{kind}, {workers}"] = _command(kind, world, config, shards, out)
        with started(commands, Path(folder)) as sides:
            periods = take_turns(sides, options.epochs)
        facts = json.loads((Path(folder) / "ddp2" / "facts.json").read_text())
    clips = facts["clips"]
    overhead = {
        workers: ratio_of(periods, f"ray, {workers}", f"ddp, {workers}")
        for workers in WORLDS.values()
    }
    alone = statistics.median(periods["ddp, 1 worker"])
    return Result(
        name="train_scaling",
        ratio=ratio_of(periods, "ddp, 1 worker", "ddp, 2 workers"),
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
            "speed-up predicted by the cost model": alone / (alone / 2 + facts["all_reduce"]),
            "all-reduce, seconds an epoch": facts["all_reduce"],
            "Ray Train over plain DDP": overhead,
            "overhead goal": f"<= {OVERHEAD}",
            "overhead holds": overhead["2 workers"] <= OVERHEAD,
            "clips an epoch": clips,
            "cores": os.cpu_count(),
            "seconds of each epoch": periods,
        },
    )


def _command(kind: str, world: int, config: Config, shards: str, out: Path) -> list[str]:
    settings = json.dumps(to_dict(config))
    module = [sys.executable, "-m", "benchmarks._scaling_side"]
    return [*module, kind, str(world), settings, shards, str(out)]


def _config(epochs: int, steps: int, batch: int) -> Config:
    changes: dict[str, Any] = {
        "data.protocol": "custom",
        "data.custom.subjects": [1, 3, 5, 7],
        "data.val_subjects": [5],
        "train.epochs": epochs,
        "train.attack.steps": steps,
        "train.batch_size": batch,
        "train.val_clips": 2,
        "train.val_steps": 1,
    }
    return apply_overrides(Config(), changes)
