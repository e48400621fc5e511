"""What each stage asks of store and driver from 1 to 64 nodes: the tables of docs/scaling.md.

    python -m benchmarks object_store && python -m benchmarks metadata     # measure the constants
    python -m benchmarks._stage_model [--store-gb 5] [--node-cores 16]      # print the tables

Counts are products: requests of a clip, shard or epoch (`object_store`), memory and milliseconds of
the driver (`metadata`), times how many there are in NTU-60 (xsub) and NTU-120 (xset) under the
recipes. Seconds of the store are bytes over its bandwidth, `--store-gb`, an assumption.
"""

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._bench import ROOT
from benchmarks.object_store import PER_SHARD

NODES = (1, 4, 16, 64)
RAW_MB = 3.6 + 0.4  # video and skeleton file of a clip at 1080p, as `ingest_growth` assumes
CORE_SECONDS = 0.19  # of a core for a clip as NTU's in index and shard (`ingest_growth`)
SHARD_CLIPS, INDEX_CLIPS, PIECE_CLIPS = 512, 64, 256  # of a shard, an index task, a piece
SHARD_CLIP_KB = 32 * 6.0 + 75 * 2 * 25 * 3 * 4 / 1000  # JPEG of 128x128 (assumed) and joints
PARAMETERS = 32.5e6  # R(2+1)D-18 + HCN (`_cost_model`)
EPOCHS = 60  # of a run of the recipes


@dataclass(frozen=True)
class DataSet:
    """How many clips there are."""

    name: str
    clips: int
    train: int
    test: int


SETS = (DataSet("NTU-60", 56_880, 40_091, 16_487), DataSet("NTU-120", 114_480, 54_468, 59_477))


def main(argv: list[str]) -> int:
    """Print a table for each set of clips."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks._stage_model")
    parser.add_argument("--store-gb", type=float, default=5.0, help="GB/s of the object store")
    parser.add_argument("--node-cores", type=int, default=16)
    parser.add_argument("--bench", type=Path, default=ROOT / "artifacts" / "bench")
    options = parser.parse_args(argv)
    asked, held = (
        json.loads((options.bench / f"{name}.json").read_text())["sides"]
        for name in ("object_store", "metadata")
    )
    for data in SETS:
        print(f"\n{data.name}: {data.clips:,} clips\n")
        print("| stage | nodes | tasks | requests | read | written | store (s) | cores (s) |")
        print("|---|--:|--:|--:|--:|--:|--:|--:|")
        for stage in (_index, _shard, _train, _evaluate):
            for nodes in NODES:
                row = stage(data, nodes, asked)
                seconds = (row["read"] + row["written"]) / options.store_gb / 1e9
                cores = row["core_seconds"] / (nodes * options.node_cores)
                print(
                    f"| {row['name']} | {nodes} | {row['tasks']:,} | {row['requests']:,.0f} | "
                    f"{_size(row['read'])} | {_size(row['written'])} | {seconds:,.0f} | "
                    f"{f'{cores:,.0f}' if cores else ''} |"
                )
    print()
    for name, side in held.items():
        print(f"{name}: {side['seconds']:.0f} s, peak {side['peak_mb']:.0f} MB")
    return 0


def _index(data: DataSet, nodes: int, asked: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "index", "tasks": math.ceil(data.clips / INDEX_CLIPS),
        "requests": data.clips * _requests(asked, "index", "a clip"),
        "read": data.clips * RAW_MB * 1e6, "written": 0.0,
        "core_seconds": data.clips * CORE_SECONDS / 2,
    }  # fmt: skip


def _shard(data: DataSet, nodes: int, asked: dict[str, Any]) -> dict[str, Any]:
    shards = math.ceil(data.clips / SHARD_CLIPS)
    own = _requests(asked, "shard", "a shard") - 4 * PER_SHARD
    return {
        "name": "shard", "tasks": shards,
        # Each of a clip's two files is looked at and fetched; the rest belongs to its shard.
        "requests": data.clips * 4 + shards * (own),
        "read": data.clips * RAW_MB * 1e6, "written": data.clips * SHARD_CLIP_KB * 1e3,
        "core_seconds": data.clips * CORE_SECONDS / 2,
    }  # fmt: skip


def _train(data: DataSet, nodes: int, asked: dict[str, Any]) -> dict[str, Any]:
    """One run: each node fills its cache with the training clips' shards; rank 0 stores epochs."""
    shards = math.ceil(data.train / SHARD_CLIPS)
    stored = 4 * PARAMETERS * 4  # deployed weights, weights, and the optimiser's two moments
    return {
        "name": "train, a run", "tasks": nodes,
        "requests": nodes * shards * _requests(asked, "reading", "a shard")
        + EPOCHS * _requests(asked, "train", "an epoch"),
        "read": nodes * data.train * SHARD_CLIP_KB * 1e3, "written": EPOCHS * stored,
        "core_seconds": 0.0,
    }  # fmt: skip


def _evaluate(data: DataSet, nodes: int, asked: dict[str, Any]) -> dict[str, Any]:
    shards = math.ceil(data.test / SHARD_CLIPS)
    return {
        "name": "evaluate, a run", "tasks": math.ceil(data.test / PIECE_CLIPS) + 2,
        "requests": nodes * shards * _requests(asked, "reading", "a shard"),
        "read": nodes * data.test * SHARD_CLIP_KB * 1e3, "written": 0.0,
        "core_seconds": 0.0,
    }  # fmt: skip


def _requests(asked: dict[str, Any], stage: str, unit: str) -> float:
    """Measured requests of a stage for one unit, on the most tasks that were tried.

    Of an epoch of training what it writes: it reads shards from the cache.
    """
    found = [side for name, side in asked.items() if name.startswith(stage) and name.endswith(unit)]
    methods = ("PUT", "POST", "DELETE") if stage == "train" else ("GET", "HEAD", "PUT", "POST")
    return float(sum(found[-1].get(method, 0.0) for method in methods))


def _size(count: float) -> str:
    return f"{count / 1e12:.2f} TB" if count >= 1e12 else f"{count / 1e9:.1f} GB"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
