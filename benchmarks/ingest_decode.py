"""The shard stage at 1080p against nothing but decoding the same videos, with the same threads.

    python -m benchmarks ingest_decode [-- --clips 32 --memory-clips 1000 --here]

Every side runs as the same number of parallel Ray tasks, one decoder thread each, on the same files
(MPEG-4 Part 2, 75 frames, 11 Mbit/s, as NTU's). The shard side also parses the skeleton, cuts and
scales 16 frames, hashes and seals; once with `shard.decode=exact`, once with `fast`, whose crops
are then compared with the exact ones. Beside them stand other ways to decode: FFmpeg's reduced
sizes, key frames alone, and decord2, video-reader-rs and torchcodec where they are installed. Then
one process writes shards of many 1080p clips, and its memory is read after each: the largest, and
what the later half grew over the earlier. With --here all work is done in this process and counted
in its CPU seconds, which busy neighbours touch less.
"""

import argparse
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from benchmarks import _decoders
from benchmarks._bench import Result, paired, ratio_of, spread
from benchmarks._ntu_files import write_tree
from components.config.train import RaySection
from components.ntu.ids import ClipId
from components.shards.writer import Plan, plan_shards, write_shard
from components.sources import get_source
from pipelines._cluster import cluster
from pipelines._tasks import Cluster, parallel

EXPLICIT = True  # minutes
GOAL = 0.9
FAST_GOAL, PSNR_GOAL = 1.8, 38.0
FRAMES = 75
MEMORY_FRAMES = 12
NO_MEMORY: dict[str, Any] = {"holds": True}  # with --memory-clips 0
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
    parser.add_argument("--here", action="store_true", help="no Ray, CPU seconds")
    options = parser.parse_args(args)
    clock = time.process_time if options.here else time.perf_counter
    workers = nullcontext(None) if options.here else cluster(RaySection())
    with tempfile.TemporaryDirectory(prefix="ingest-decode-") as name, workers as c:
        folder = Path(name)
        write_tree(
            folder / "ntu", _ids(options.clips), frames=FRAMES, width=1920, height=1080, distinct=4
        )
        sides = _sides(c, folder, options.clips)
        times = paired(sides, repeats=options.repeats, warmup=1, clock=clock)
        others, away = _others(c, folder, options.clips)
        times |= paired(others, repeats=max(1, options.repeats // 2), warmup=1, clock=clock)
        psnr = _psnr(folder / "shards", folder / "shards-fast")
        memory = _memory(folder, options.memory_clips) if options.memory_clips else NO_MEMORY
    fast = ratio_of(times, "decode alone", "shard stage, fast")
    fast_holds = fast >= FAST_GOAL and psnr >= PSNR_GOAL
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
        notes=f"{options.clips} clips of {FRAMES} frames, {_cpus(c)} tasks of one thread; "
        f"fast: {fast:.2f} times decoding (goal {FAST_GOAL}), worst crop {psnr:.1f} dB (goal "
        f"{PSNR_GOAL:g}): {_verdict(fast_holds)}; memory {_verdict(memory['holds'])} over "
        f"{options.memory_clips} clips",
        details={
            "fast": {"ratio": fast, "worst_psnr_db": psnr, "holds": fast_holds},
            "not_imported": away,
        },
    )


def _cpus(c: Cluster | None) -> int:
    return c.cpus if c else 1


def _each(c: Cluster | None, work: Callable[[Any], Any], pieces: list[Any]) -> list[Any]:
    if c is None:
        return [work(piece) for piece in pieces]
    return list(parallel(c, work, pieces, describe=work.__name__))


def _verdict(holds: bool) -> str:
    return "holds" if holds else "DOES NOT HOLD"


def _ids(count: int) -> list[ClipId]:
    return [ClipId(1, 1, i // 60 + 1, 1, i % 60 + 1) for i in range(count)]


def _plans(
    data: Path, where: Path, per_shard: int, expected: int, decode: str = "exact"
) -> list[Plan]:
    settings = SETTINGS if decode == "exact" else {**SETTINGS, "decode": decode}
    clips = [(found, expected, "1") for found in get_source("ntu").find(data).clips]
    return plan_shards(
        clips, clips_per_shard=per_shard, root=str(data), where=str(where), settings=settings
    )


def _sides(c: Cluster | None, folder: Path, clips: int) -> dict[str, Callable[[], Any]]:
    def shard(decode: str, where: Path) -> Callable[[], None]:
        plans = _plans(folder / "ntu", where, max(1, clips // (2 * _cpus(c))), FRAMES, decode)

        def run() -> None:
            shutil.rmtree(where, ignore_errors=True)
            written = _each(c, write_shard, plans)
            if sum(w.record["rows"] for w in written) != clips:
                raise RuntimeError("the shard side lost clips")

        return run

    return {
        "decode alone": _decoding(c, _decoders.full, folder, clips),
        "shard stage": shard("exact", folder / "shards"),
        "shard stage, fast": shard("fast", folder / "shards-fast"),
    }


def _others(
    c: Cluster | None, folder: Path, clips: int
) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    there, away = _decoders.peers()
    ways = {
        "decode at 1/2": _decoders.half,
        "decode at 1/4": _decoders.quarter,
        "key frames alone": _decoders.key_frames,
        **there,
    }
    return {name: _decoding(c, way, folder, clips) for name, way in ways.items()}, away


def _decoding(
    c: Cluster | None, decode: Callable[[list[str]], int], folder: Path, clips: int
) -> Callable[[], Any]:
    plans = _plans(folder / "ntu", folder, max(1, clips // (2 * _cpus(c))), FRAMES)
    videos = [[str(folder / "ntu" / found.video) for found, _, _ in p.clips] for p in plans]
    return lambda: _each(c, decode, videos)


def _psnr(exact: Path, fast: Path) -> float:
    """dB of the clip whose fast crops differ most from the exact ones, over all its pixels."""
    worst = np.inf
    files = [path.name for path in sorted(exact.glob("shard-*.arrow"))]
    for name in files:
        with pa.ipc.open_file(exact / name) as one, pa.ipc.open_file(fast / name) as two:
            pairs = zip(*(f.read_all().column("rgb").to_pylist() for f in (one, two)), strict=True)
            for clips in pairs:
                a, b = (np.frombuffer(b"".join(c), np.uint8).astype(np.float64) for c in clips)
                worst = min(worst, 10 * np.log10(255**2 / max(float(np.mean((a - b) ** 2)), 1e-10)))
    return float(worst)


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
