"""Reading raw shards into batches against copying the same bytes with numpy, and against peers.

    python -m benchmarks shard_read -- [--data FOLDER] [--clips 512] [--frames 16] [--size 64]

Sides, on the same clips and in the same shuffled order: bare numpy copies of the same bytes that
lie in plain memory; this project's reader on its mapped files; WebDataset; HuggingFace `datasets`;
decoding the AVI on the fly. All fill uint8 batches of 32 clips, pixels and joints. --data is a
folder in NTU layout; without it clips of 320x180 are made up.
"""

import argparse
import io
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._bench import Result, paired, ratio_of, spread
from benchmarks._ntu_files import write_tree
from components.datasets import ClipDataset
from components.datasets.order import permutation
from components.ntu.ids import ClipId
from components.shards import ShardSet
from components.shards.sealing import seal
from components.shards.storage import open_store
from components.shards.writer import plan_shards, write_shard
from components.sources import get_source
from components.sources.ingest import keep

EXPLICIT = True  # needs the optional peers
GOAL = 0.8
BATCH_GOAL = 3.0  # of whole float batches, against conversion of all bytes of a batch at once
BATCH = 32
STEPS = 32


def run(args: list[str]) -> Result:
    """Write the clips once in each form, then read all of them in turn with each reader."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks shard_read --")
    parser.add_argument("--data", help="a folder in NTU layout")
    parser.add_argument("--clips", type=int, default=512)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(args)
    with tempfile.TemporaryDirectory(prefix="shard-read-") as name:
        folder = Path(name)
        data = Path(options.data) if options.data else folder / "ntu"
        if not options.data:
            ids = [ClipId(1, 1, p // 60 + 1, 1, p % 60 + 1) for p in range(options.clips)]
            write_tree(data, ids, frames=60, width=320, height=180)
        shards = _build(data, folder / "shards", options)
        clips = ClipDataset(
            shards,
            range(len(shards)),
            np.unique(shards.meta.column("action").to_numpy()).tolist(),
            rgb_frames=options.frames,
            rgb_size=options.size,
            skeleton_frames=STEPS,
        )
        order = permutation(len(shards), 0, 0)
        batches = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
        fast: dict[str, Callable[[], Any]] = {
            "numpy copy": _numpy_side(_in_memory(clips), batches),
            "shards": _each(lambda step: clips.read(step.tolist()), batches),
        }
        times = paired(fast, repeats=options.repeats * 3)
        whole = {
            "whole Batch, clip by clip": _each(clips.batch, batches),
            "whole Batch, all bytes first": _bytes_first_side(clips, batches),
        }
        times |= paired(whole, repeats=options.repeats * 2)
        slow = {
            "webdataset": _webdataset_side(clips, folder / "clips.tar"),
            "huggingface datasets": _hugging_face_side(folder / "shards", batches, options),
            "decode AVI on the fly": _decode_side(data, shards, batches, options),
        }
        times |= paired(slow, repeats=options.repeats, warmup=1)
    count = len(order)
    megabytes = count * (options.frames * options.size**2 * 3 + STEPS * 2 * 25 * 3 * 4) / 1e6
    rates = {name: spread([count / t for t in times[name]]) for name in times}
    mine = float(np.median(times["shards"]))
    behind = [n for n in ("webdataset", "huggingface datasets", "decode AVI on the fly")
              if float(np.median(times[n])) <= mine]  # fmt: skip
    faster = ratio_of(times, "whole Batch, all bytes first", "whole Batch, clip by clip")
    return Result(
        name="shard_read",
        ratio=ratio_of(times, "numpy copy", "shards"),
        goal=GOAL,
        sense=">=",
        sides=rates,
        unit="clips per second",
        notes=f"{count} clips of {options.frames} x {options.size}x{options.size}, "
        f"{megabytes:.0f} MB a pass; whole batches clip by clip {faster:.2f} times as fast as "
        f"bytes first (goal {BATCH_GOAL:g}); "
        + (f"BEHIND {behind}" if behind else "ahead of each peer"),
        details={
            "data": options.data or "made up",
            "peers_ahead": behind,
            "whole_batch": {"ratio": faster, "goal": BATCH_GOAL, "holds": faster >= BATCH_GOAL},
        },
    )


def _build(data: Path, where: Path, options: argparse.Namespace) -> ShardSet:
    settings = {"source": "ntu", "unit": "metres", "codec": "raw", "jpeg_quality": 0}
    settings |= {"frames": options.frames, "size": options.size, "margin": 0.15}
    found = get_source("ntu").find(data).clips[: options.clips]
    plans = plan_shards(
        [(clip, 0, "") for clip in found],
        clips_per_shard=128,
        root=str(data),
        where=str(where),
        settings=settings,
    )
    seal(open_store(where, create=True), [write_shard(plan) for plan in plans], settings)
    return ShardSet.open(where)


def _each(read: Callable[[np.ndarray], object], batches: list[np.ndarray]) -> Callable[[], None]:
    """Read batch after batch and let each go, as a training loop does."""

    def all_of_them() -> None:
        for step in batches:
            read(step)

    return all_of_them


def _bytes_first_side(clips: ClipDataset, batches: list[np.ndarray]) -> Callable[[], Any]:
    """All bytes of a batch first, then conversion and resizing of all at once."""

    def convert(step: np.ndarray) -> None:
        sampled = clips.read(step.tolist())
        pixels = torch.from_numpy(sampled.rgb).permute(0, 4, 1, 2, 3)
        pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255.0)
        torch.from_numpy(sampled.joints).permute(0, 4, 1, 3, 2).contiguous()

    return _each(convert, batches)


def _in_memory(clips: ClipDataset) -> list[tuple[np.ndarray, ...]]:
    return list(zip(*clips.read(range(len(clips))), strict=True))


def _numpy_side(
    sources: list[tuple[np.ndarray, ...]], batches: list[np.ndarray]
) -> Callable[[], Any]:
    def copy(step: np.ndarray) -> None:
        targets = [np.empty((len(step), *s.shape), s.dtype) for s in sources[0]]
        for i, p in enumerate(step.tolist()):
            for target, source in zip(targets, sources[p], strict=True):
                target[i] = source

    return _each(copy, batches)


def _webdataset_side(clips: ClipDataset, path: Path) -> Callable[[], Any]:
    import webdataset

    sampled = clips.read(range(len(clips)))
    with tarfile.open(path, "w") as tar:
        for i, clip_id in enumerate(clips.clip_ids):
            for suffix, array in zip(("rgb", "joints", "present"), sampled, strict=True):
                body = array[i].tobytes()
                info = tarfile.TarInfo(f"{clip_id}.{suffix}")
                info.size = len(body)
                tar.addfile(info, io.BytesIO(body))
    shapes = {
        suffix: (array.dtype, array.shape[1:])
        for suffix, array in zip(("rgb", "joints", "present"), sampled, strict=True)
    }

    def read() -> None:
        held = []
        for sample in webdataset.WebDataset(str(path), shardshuffle=False):
            held.append([np.frombuffer(sample[k], d).reshape(s) for k, (d, s) in shapes.items()])
            if len(held) == BATCH:
                [np.stack(column) for column in zip(*held, strict=True)]
                held = []

    return read


def _hugging_face_side(
    where: Path, batches: list[np.ndarray], options: argparse.Namespace
) -> Callable[[], Any]:
    import datasets

    datasets.disable_progress_bars()
    files = sorted(str(path) for path in where.glob("shard-*.arrow"))
    table = datasets.load_dataset(
        "arrow", data_files=files, split="train", cache_dir=str(where / "hf")
    ).select_columns(["rgb", "skeleton", "present"])

    def read() -> None:
        for step in batches:
            rows = table[step.tolist()]
            frames = [np.frombuffer(b"".join(clip), np.uint8) for clip in rows["rgb"]]
            np.stack(frames).reshape(-1, options.frames, options.size, options.size, 3)
            for clip, seen in zip(rows["skeleton"], rows["present"], strict=True):
                steps = np.linspace(0, len(clip) - 1, STEPS).astype(int)
                np.array([clip[s] for s in steps], np.float32)
                np.array([seen[s] for s in steps], bool)

    return read


def _decode_side(
    data: Path, shards: ShardSet, batches: list[np.ndarray], options: argparse.Namespace
) -> Callable[[], Any]:
    source = get_source("ntu")
    found = {str(f.clip): f for f in source.find(data).clips}

    def clips() -> Iterator[np.ndarray]:
        for row in np.concatenate(batches).tolist():
            kept = keep(
                source,
                data,
                found[shards.clip_ids[row]],
                frames=options.frames,
                size=options.size,
                margin=0.15,
            )
            yield kept.rgb

    return lambda: sum(1 for _ in clips())
