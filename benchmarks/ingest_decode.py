"""The shard stage at 1080p against nothing but decoding the same videos, with the same threads.

    python -m benchmarks ingest_decode [-- --clips 32 --memory-clips 1000]

Both sides run as the same number of parallel Ray tasks, one decoder thread each, on the same files
(MPEG-4 Part 2, 75 frames, 11 Mbit/s, as NTU's). The shard side also parses the skeleton, cuts and
scales 16 frames, hashes and seals. Then one process writes shards of many 1080p clips, and its
memory is read after each: the largest, and what the later half grew over the earlier.
"""

import argparse
import multiprocessing
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import psutil

from benchmarks._bench import Result, paired, ratio_of, spread
from benchmarks._ntu_files import write_tree
from components.config.train import RaySection
from components.ntu.ids import ClipId
from components.shards.writer import Plan, plan_shards, write_shard
from components.sources import get_source
from pipelines._cluster import Cluster, cluster, parallel

EXPLICIT = True  # minutes
GOAL = 0.9
FRAMES = 75
MEMORY_FRAMES = 12
SETTINGS: dict[str, Any] = {
    "source": "ntu",
    "unit": "metres",
    "codec": "raw",
    "jpeg_quality": 0,
    "frames": 16,
    "size": 64,
    "margin": 0.15,
}


def run(args: list[str]) -> Result:
    """Encode the clips, then decode and shard them in turn; at the end watch the memory."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks ingest_decode --")
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--memory-clips", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args(args)
    with tempfile.TemporaryDirectory(prefix="ingest-decode-") as name, cluster(RaySection()) as c:
        folder = Path(name)
        write_tree(
            folder / "ntu", _ids(options.clips), frames=FRAMES, width=1920, height=1080, distinct=4
        )
        sides = _sides(c, folder, options.clips)
        times = paired(sides, repeats=options.repeats, warmup=1)
        memory = _memory(folder, options.memory_clips)
    frames = options.clips * FRAMES
    rates: dict[str, Any] = {n: spread([frames / t for t in times[n]]) for n in times}
    rates["memory of a worker, MiB"] = memory
    return Result(
        name="ingest_decode",
        ratio=ratio_of(times, "decode alone", "shard stage"),
        goal=GOAL,
        sense=">=",
        sides=rates,
        unit="frames per second, 1920x1080",
        notes=f"{options.clips} clips of {FRAMES} frames, {c.cpus} tasks of one thread; memory "
        + ("holds" if memory["holds"] else "DOES NOT HOLD")
        + f" over {options.memory_clips} clips",
    )


def _ids(count: int) -> list[ClipId]:
    return [ClipId(1, 1, i // 60 + 1, 1, i % 60 + 1) for i in range(count)]


def _plans(data: Path, where: Path, per_shard: int, expected: int) -> list[Plan]:
    clips = [(found, expected, "1") for found in get_source("ntu").find(data).clips]
    return plan_shards(
        clips, clips_per_shard=per_shard, root=str(data), where=str(where), settings=SETTINGS
    )


def _sides(c: Cluster, folder: Path, clips: int) -> dict[str, Callable[[], Any]]:
    data, where = folder / "ntu", folder / "shards"
    plans = _plans(data, where, max(1, clips // (2 * c.cpus)), FRAMES)
    videos = [[str(data / found.video) for found, _, _ in plan.clips] for plan in plans]

    def shard() -> None:
        shutil.rmtree(where, ignore_errors=True)
        written = list(parallel(c, write_shard, plans, describe="shard"))
        if sum(w.record["rows"] for w in written) != clips:
            raise RuntimeError("the shard side lost clips")

    return {
        "decode alone": lambda: list(parallel(c, decode_all, videos, describe="decode")),
        "shard stage": shard,
    }


def decode_all(paths: list[str]) -> int:
    """Every frame of these videos, and nothing else."""
    count = 0
    for path in paths:
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count, stream.thread_type = 1, "NONE"
            count += sum(1 for _ in container.decode(stream))
    return count


def _memory(folder: Path, clips: int) -> dict[str, Any]:
    data = folder / "memory"
    write_tree(data, _ids(clips), frames=MEMORY_FRAMES, width=1920, height=1080, distinct=4)
    plans = _plans(data, folder / "memory-shards", 50, MEMORY_FRAMES)
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        held = pool.map(_write_and_weigh, plans, chunksize=1)
    half = len(held) // 2
    growth = max(held[half:]) - max(held[:half])
    return {
        "largest": max(held),
        "after first shard": held[0],
        "later half over earlier": growth,
        "holds": max(held) < 1024 and growth < 32,
    }


def _write_and_weigh(plan: Plan) -> float:
    write_shard(plan)
    return psutil.Process().memory_info().rss / 2**20
