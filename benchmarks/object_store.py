"""What the pipeline asks of an object store: requests and bytes, counted by an S3 server.

    python -m benchmarks object_store [-- --clips 96 --tasks 1 2 3]

Raw files, shards and runs lie in S3 (moto, which counts what it is asked), small clips, the stages
as they are; only the driver and its tasks run, on this machine. `per` names what a figure is for: a
clip, a shard, an epoch. The ratio is the requests of index and shard on the most tasks over those
on one: work that is spread asks for no more. docs/scaling.md projects the figures.
"""

import argparse
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from pyarrow import fs
from werkzeug.serving import make_server

from benchmarks._bench import Result
from benchmarks._ntu_files import write_tree
from components.config.train import RaySection
from components.ntu.ids import ClipId
from components.shards import ShardSet
from pipelines import index, shard, train
from pipelines._cluster import cluster
from pipelines._stage import StageError, run_stage

EXPLICIT = True  # minutes
PER_SHARD = 8
SMALL = ["data.protocol=custom", "data.custom.subjects=[1,2,3]", "data.val_subjects=[3]",
         "shard.frames=8", "shard.size=48", f"shard.clips_per_shard={PER_SHARD}",
         "train.batch_size=16", "train.val_clips=8", "train.stack_epochs=0", "ray.workers=1",
         "model.rgb_frames=8", "model.skeleton_frames=16"]  # fmt: skip


class Counted:
    """An S3 server that counts requests by method, and the bytes of bodies in both directions."""

    def __init__(self) -> None:
        self.store = DomainDispatcherApplication(create_backend_app)
        self.requests: Counter[str] = Counter()
        self.sent = self.received = 0
        self.lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        body = b"".join(self.store(environ, start))
        with self.lock:
            self.requests[environ["REQUEST_METHOD"]] += 1
            # Without the marks that the SDK puts between the pieces of a body.
            length = environ.get("HTTP_X_AMZ_DECODED_CONTENT_LENGTH")
            self.received += int(length or environ.get("CONTENT_LENGTH") or 0)
            self.sent += len(body) if environ["REQUEST_METHOD"] != "HEAD" else 0
        return [body]

    def take(self) -> dict[str, Any]:
        """What came since the last time."""
        with self.lock:
            found = {"requests": dict(self.requests), "read": self.sent, "written": self.received}
            self.requests, self.sent, self.received = Counter(), 0, 0
        return found


@contextmanager
def counting() -> Iterator[tuple[Counted, str]]:
    """The server, and the form of a URI in its bucket."""
    counted = Counted()
    server = make_server("127.0.0.1", 0, counted, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    query = f"endpoint_override=127.0.0.1:{server.server_port}&scheme=http&region=us-east-1"
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ.setdefault(key, "bench")
    where, root = fs.FileSystem.from_uri(f"s3://bench?{query}&allow_bucket_creation=true")
    where.create_dir(root)
    try:
        yield counted, f"s3://bench/{{}}?{query}"
    finally:
        server.shutdown()


def run(args: list[str]) -> Result:
    """Count each stage on 1, 2, 3 tasks, then reading and two lengths of training."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks object_store --")
    parser.add_argument("--clips", type=int, default=96)
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args(args)
    sides: dict[str, Any] = {}
    totals = []
    with tempfile.TemporaryDirectory(prefix="object-store-") as name, counting() as (s3, uri):
        folder = Path(name)
        ids = [ClipId(1, n % 3 + 1, n // 3 % 4 + 1, n // 60 + 1, n // 12 % 5 + 1)
               for n in range(options.clips)]  # fmt: skip
        write_tree(folder / "ntu", ids, frames=16, width=96, height=54, distinct=4)
        where, root = fs.FileSystem.from_uri(uri.format("raw"))
        fs.copy_files(str(folder / "ntu"), root, destination_filesystem=where)
        raw = sum(p.stat().st_size for p in (folder / "ntu").rglob("*") if p.is_file())
        for tasks in options.tasks:
            words = [f"paths.artifacts={folder / str(tasks)}", f"ray.tasks={tasks}", *SMALL]
            words += [
                f"paths.data_uri={uri.format('raw')}",
                f"tracking.uri=sqlite:///{folder}/mlflow.db",
            ]
            words += [f"shard.uri={uri.format(f'shards{tasks}')}"]
            s3.take()
            with cluster(RaySection()):
                _stage("index", index.main, words)
                looked = s3.take()
                _stage("shard", shard.main, words)
                sharded = s3.take()
            shards = -(-options.clips // PER_SHARD)
            sides[f"index, {tasks} tasks, a clip"] = _per(looked, options.clips)
            sides[f"shard, {tasks} tasks, a clip"] = _per(sharded, options.clips)
            sides[f"shard, {tasks} tasks, a shard"] = _per(sharded, shards)
            totals.append(sum(looked["requests"].values()) + sum(sharded["requests"].values()))
        read = ShardSet.open(uri.format(f"shards{tasks}"), folder / "cache")
        for row in range(0, options.clips, PER_SHARD):
            read.clip(row)
        sides["reading, a shard"] = _per(s3.take(), shards)
        spent = []
        for epochs in (1, 2, 4):  # the first fills the cache of shards
            more = [f"train.epochs={epochs}", f"ray.storage={uri.format('runs')}", "tune.trials=0"]
            _stage("train", train.main, [*words, *more])
            spent.append(s3.take())
        sides["train, an epoch"] = _per(_minus(spent[2], spent[1]), 2)
        sides["train, a run"] = _per(_minus(spent[1], _minus(spent[2], spent[1])), 1)
    return Result(
        name="object_store",
        ratio=totals[-1] / totals[0],
        goal=1.1,
        sense="<=",
        sides=sides,
        unit="requests and bytes",
        notes=f"{options.clips} clips of {raw / options.clips / 1e3:.1f} kB, {PER_SHARD} a shard",
    )


def _stage(name: str, main: Callable[..., None], words: list[str]) -> None:
    if run_stage(name, main, words):
        raise StageError(f"the {name} stage failed; see above")


def _per(found: dict[str, Any], count: int) -> dict[str, float]:
    each = {method: n / count for method, n in sorted(found["requests"].items())}
    return each | {"bytes read": found["read"] / count, "bytes written": found["written"] / count}


def _minus(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    methods = a["requests"].keys() | b["requests"].keys()
    return {
        "requests": {m: a["requests"].get(m, 0) - b["requests"].get(m, 0) for m in methods},
        "read": a["read"] - b["read"],
        "written": a["written"] - b["written"],
    }
