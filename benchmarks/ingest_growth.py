"""Cost of ingest as work grows, and what that means for all of NTU-RGB+D on a cluster.

    python -m benchmarks ingest_growth [-- --sizes 100 1000 10000]

The index (check=full) and shard stages run over trees of small clips (160x90, 12 frames) of growing
size; the ratio is clips per second at the largest size over those at the smallest, start-up of Ray
left out. Then clips as NTU's (1920x1080, 75 frames) give the time a core needs for one, and with
it the projection. `names` indexes the 114,480 names of NTU-RGB+D 120.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._bench import Result
from benchmarks._ntu_files import write_tree
from components.config.train import RaySection
from components.ntu.ids import ClipId
from components.ntu.roster import all_clips
from pipelines import index, shard
from pipelines._cluster import cluster
from pipelines._stage import StageError, run_stage

EXPLICIT = True  # many minutes
GOAL = 0.8
NODES = (1, 4, 16, 64)
CORES = 16  # of a node in the projection
REAL_CLIPS = 24
ASSUMPTIONS = (
    f"each node has {CORES} cores like the one measured, all of them used, one task a core; "
    "tasks are independent, so time divides by the cores; the file store delivers what the last "
    "column asks for; a clip is 75 frames of 1920x1080 in 3.6 MB with one person; "
    "index.check=full and shard.frames=16; start-up of Ray and the sealing of the index "
    "(seconds) are left out"
)


def run(args: list[str]) -> Result:
    """Time both stages at each size, project, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks ingest_growth --")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--real-clips", type=int, default=REAL_CLIPS)
    options = parser.parse_args(args)
    sides: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="ingest-growth-") as name:
        folder = Path(name)
        sides["names of NTU-RGB+D 120, seconds"] = _index_names(folder)
        with cluster(RaySection()) as c:
            # Every worker starts and loads its libraries: the index hands out 64 clips at a time.
            _stages(folder / "warm", 64 * 2 * c.cpus, 160, 90, 12, "shard.clips_per_shard=8")
            for size in options.sizes:
                per_shard = min(128, max(1, size // (4 * c.cpus)))
                sides[f"{size} clips"] = _stages(
                    folder / str(size), size, 160, 90, 12, f"shard.clips_per_shard={per_shard}"
                )
            per_shard = max(1, options.real_clips // (4 * c.cpus))
            more = f"shard.clips_per_shard={per_shard}"
            real = _stages(folder / "real", options.real_clips, 1920, 1080, 75, more)
            sides["clips as NTU's"] = real
    per_core = c.cpus / real["clips_per_second"]
    table = [_row(clips, nodes, per_core) for clips in (56880, 114480) for nodes in NODES]
    for row in table:
        print(
            "  {clips:>7} clips, {nodes:>2} nodes: {hours:8.2f} h, {gb_per_s:6.2f} GB/s".format(
                **row
            )
        )
    first, last = (sides[f"{n} clips"]["clips_per_second"] for n in
                   (min(options.sizes), max(options.sizes)))  # fmt: skip
    return Result(
        name="ingest_growth",
        ratio=last / first,
        goal=GOAL,
        sense=">=",
        sides=sides,
        unit="clips per second, index and shard together",
        notes=f"{c.cpus} cores; a core needs {per_core:.2f} s for a clip as NTU's",
        details={"projection": table, "assumptions": ASSUMPTIONS},
    )


def _row(clips: int, nodes: int, per_core: float) -> dict[str, float]:
    seconds = clips * per_core / (nodes * CORES)
    read = 2 * 3.6e-3 * clips  # both stages read every file
    return {
        "clips": clips,
        "nodes": nodes,
        "hours": seconds / 3600,
        "gb_per_s": read / seconds,
    }


def _stages(
    folder: Path, count: int, width: int, height: int, frames: int, *more: str
) -> dict[str, float]:
    ids = [ClipId(n // 6000 + 1, 1, n // 60 % 100 + 1, 1, n % 60 + 1) for n in range(count)]
    write_tree(folder / "ntu", ids, frames=frames, width=width, height=height, distinct=4)
    words = [f"paths.data={folder / 'ntu'}", f"paths.artifacts={folder / 'out'}"]
    words += ["data.protocol=custom", "data.custom.setups=[999]", *more]
    spent = {}
    for name, main in (("index", index.main), ("shard", shard.main)):
        start = time.perf_counter()
        status = run_stage(name, main, words)
        spent[name] = time.perf_counter() - start
        # These made up names fill no split, which the index stage tells at its end.
        if status and name == "shard":
            raise StageError("the shard stage failed; see above")
    total = sum(spent.values())
    return {"clips_per_second": count / total, **{f"{k}_seconds": v for k, v in spent.items()}}


def _index_names(folder: Path) -> float:
    data = folder / "names"
    data.mkdir()
    for name in all_clips(120):
        (data / f"{name}_rgb.avi").touch()
        (data / f"{name}.skeleton").touch()
    words = [f"paths.data={data}", f"paths.artifacts={folder / 'names-out'}"]
    start = time.perf_counter()
    if run_stage("index", index.main, [*words, "index.check=names", "data.protocol=xsub120"]):
        raise StageError("the index stage failed; see above")
    return time.perf_counter() - start
