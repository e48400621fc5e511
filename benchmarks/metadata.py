"""What the driver holds, and how long it works, at full size: 114,480 clips and 10,000 trials.

    python -m benchmarks metadata [-- --clips 114480 --trials 10000 --epochs 3]

No clip is decoded and no model trained: clips, shards' records and epochs are made up, and go
through the code that the index, shard and tune stages run in the driver, each part in a process of
its own. Ray's and MLflow's own part is left out.
Seconds are of the driver's CPU. The ratio is those of a search over the time that its epochs take,
--side-by-side trials with --epoch-seconds for an epoch: what is below 1 keeps up.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._bench import ROOT, Result
from components.config import Config, load_config
from components.datasets import select_split
from components.ntu.roster import all_clips
from components.search import output
from components.search.study import Search
from components.shards import ShardSet
from components.shards.manifest import found_rows, manifest_table, read_manifest, write_manifest
from components.shards.sealing import seal
from components.shards.storage import open_store
from components.shards.writer import Written, plan_shards, record_name
from components.sources.base import Found
from components.sources.ingest import Look

EXPLICIT = True  # minutes
SETTINGS = {"source": "ntu", "unit": "metres", "codec": "jpeg", "jpeg_quality": 90,
            "frames": 16, "size": 128, "margin": 0.1}  # fmt: skip


def run(args: list[str]) -> Result:
    """Each part in a fresh process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks metadata --")
    parser.add_argument("--clips", type=int, default=114_480)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=3, help="of a trial")
    parser.add_argument("--epoch-seconds", type=float, default=60.0)
    parser.add_argument("--side-by-side", type=int, default=64, help="trials at a time")
    options = parser.parse_args(args)
    with tempfile.TemporaryDirectory(prefix="metadata-") as name:
        folder = Path(name)
        sides = {
            f"index, {options.clips} clips": _apart(_index, folder, options.clips),
            f"shard, {options.clips} clips": _apart(_shard, folder, 128),
            f"split, {options.clips} clips": _apart(_split, folder),
            f"tune, {options.trials // 10} trials": _apart(
                _tune, folder / "tenth", options.trials // 10, options.epochs
            ),
            f"tune, {options.trials} trials": _apart(
                _tune, folder / "all", options.trials, options.epochs
            ),
        }
    epochs = options.trials * options.epochs
    training = epochs * options.epoch_seconds / options.side_by_side
    driver = sides[f"tune, {options.trials} trials"]["seconds"]
    return Result(
        name="metadata",
        ratio=driver / training,
        goal=0.5,
        sense="<=",
        sides=sides,
        notes=f"{driver:.0f} CPU seconds for a search whose {epochs} epochs take {training:.0f} s",
    )


def _apart(part: Callable[..., dict[str, Any]], *words: Any) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (part, words))


def _measured(part: Callable[..., dict[str, Any]], words: tuple[Any, ...]) -> dict[str, Any]:
    before, start = _peak(), time.process_time()
    found = part(*words)
    seconds = time.process_time() - start
    return {"seconds": seconds, "peak_mb": _peak(), "peak_mb_above_start": _peak() - before} | found


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _index(folder: Path, count: int) -> dict[str, Any]:
    names = list(all_clips(120))[:count]
    looks = [
        Look(Found(clip, f"nturgb+d_rgb/{clip}_rgb.avi", f"nturgb+d_skeletons/{clip}.skeleton"),
             rgb_frames=75, skeleton_frames=75, width=1920, height=1080, bodies=1, persons=1,
             digest=f"{number:032x}")
        for number, clip in enumerate(names)
    ]  # fmt: skip
    path = folder / "manifest.parquet"
    write_manifest(manifest_table(looks), path, "ntu")
    return {"manifest_bytes": path.stat().st_size}


def _shard(folder: Path, per_shard: int) -> dict[str, Any]:
    table, _ = read_manifest(folder / "manifest.parquet")
    where = folder / "shards"
    plans = plan_shards(
        found_rows(table.filter(table.column("accepted"))),
        clips_per_shard=per_shard, root="/mnt/ntu", where=str(where), settings=SETTINGS,
    )  # fmt: skip
    store, written, sent, back = open_store(where, create=True), [], 0, 0
    for plan in plans:
        clips = [found.clip for found, *_ in plan.clips]
        meta = [
            {
                "clip_id": str(clip), "setup": clip.setup, "camera": clip.camera,
                "subject": clip.subject, "replication": clip.replication, "action": clip.action,
                "num_rgb_frames": 75, "num_skeleton_frames": 75, "rgb_fps": 30.0,
                "skeleton_fps": 30.0, "width": 1920, "height": 1080, "box": [420, 0, 1080],
                "persons": 1, "flags": [],
            }
            for clip in clips
        ]  # fmt: skip
        record = {"file": plan.file, "rows": len(meta), "bytes": 1, "sha256": "0" * 64,
                  "inputs": "0" * 64, "rejected": [], "meta": meta}  # fmt: skip
        sent += len(json.dumps(asdict(plan), default=list))
        back += len(json.dumps(record))
        store.write(plan.file, b"0")  # its size is looked at when the index is opened
        store.write(record_name(plan.file), json.dumps(record).encode())
        written.append(Written(record, fresh=True))
    seal(store, written, SETTINGS)
    return {
        "tasks": len(plans),
        "kb_sent_a_task": sent / len(plans) / 1024,
        "kb_back_a_task": back / len(plans) / 1024,
        "index_bytes": (where / "shards.json").stat().st_size,
    }


def _split(folder: Path) -> dict[str, Any]:
    shards = ShardSet.open(folder / "shards", verify=False)
    config = load_config(ROOT / "params.yaml", ["data.protocol=xsub120"]).data
    split = select_split(shards, config)
    return {"train": len(split.train), "val": len(split.val), "test": len(split.test)}


def _tune(folder: Path, trials: int, epochs: int) -> dict[str, Any]:
    config: Config = load_config(
        ROOT / "params.yaml", [f"tune.trials={trials}", f"tune.epochs={epochs}"]
    )
    search, random = Search(config, folder / "search"), np.random.default_rng(0)
    search.begin_session()
    times = []
    while True:
        start = time.process_time()
        trial = search.next()
        if trial is None:
            break
        worth = random.uniform(0.2, 0.6)
        for epoch in range(1, epochs + 1):
            search.epoch(trial.key, _row(epoch, worth + 0.02 * epoch))
            output.write_trial(folder / "trials", search.record(trial.key), running=True)
        search.end(trial.key, "completed")
        output.write_trial(folder / "trials", search.record(trial.key))
        times.append(time.process_time() - start)
    start = time.process_time()
    table = output.table(config, search.records())
    output.write_table(folder, table)
    tenth = max(1, trials // 10)
    return {
        "ms_a_trial_first_tenth": 1e3 * sum(times[:tenth]) / tenth,
        "ms_a_trial_last_tenth": 1e3 * sum(times[-tenth:]) / tenth,
        "table_seconds": time.process_time() - start,
        "journal_mb": (folder / "search" / "journal.jsonl").stat().st_size / 2**20,
    }


def _row(epoch: int, robust: float) -> dict[str, Any]:
    cells = {f"val_robust_acc_{cell}": robust for cell in ("rgb", "skeleton", "both", "worst")}
    return {
        "epoch": epoch, "loss": 1.0, "train_clean_acc": 0.7, "train_robust_acc": 0.5,
        "val_clips": 256, "val_clean_acc": robust + 0.2, **cells, "score": robust,
        "clips_per_s": 100.0, "train_seconds": 50.0, "seconds": 60.0, "steps": 2, "lr": 1e-3,
        "rgb_eps": 8 / 255, "skeleton_eps": 0.05, "rolled_back": False, "finished_at": 0.0,
    }  # fmt: skip
