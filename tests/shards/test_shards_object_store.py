"""Shards in an object store: a real S3 server on loopback, and the local cache before it."""

import json
import os
import pickle  # noqa: TID251 - as Ray does
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import fs

from components.config import load_config
from components.config.train import RaySection
from components.datasets import ClipDataset
from components.shards import ShardError, ShardSet, reader
from components.shards.storage import NO_METADATA, open_store
from components.shards.writer import write_shard
from components.training.shard_data import open_split
from pipelines import index, shard
from pipelines._cluster import cluster
from pipelines._stage import ROOT, StageError, run_stage

Build = Callable[..., dict[str, Any]]


def test_s3_holds_the_same_bytes_as_a_folder(
    build: Build, plans: Callable[..., list], bucket: str, tmp_path: Path
) -> None:
    uri = bucket.format("same")
    assert build(uri)["fingerprint"] == build(tmp_path / "local")["fingerprint"]
    assert [write_shard(plan).fresh for plan in plans(uri)] == [False] * 3
    remote = ShardSet.open(uri, tmp_path / "cache")
    local = ShardSet.open(tmp_path / "local")
    for row in (0, 4, 8):
        np.testing.assert_array_equal(remote.clip(row).rgb, local.clip(row).rgb)
        np.testing.assert_array_equal(remote.clip(row).skeleton, local.clip(row).skeleton)


def test_the_cache_stays_below_its_limit_and_is_used_again(
    build: Build, bucket: str, tmp_path: Path
) -> None:
    uri = bucket.format("cached")
    sizes = [entry["bytes"] for entry in build(uri)["shards"]]
    limit = (sizes[0] + sizes[1] + 10) / 2**30
    cache = tmp_path / "cache"
    shards = ShardSet.open(uri, cache, limit)
    kept = [shards.clip(row).rgb.copy() for row in range(9)]
    held = [p.stat().st_size for p in cache.iterdir()]
    assert sum(held) <= limit * 2**30 and len(held) == 2
    for row in (8, 0, 5, 3):  # evicted shards come back, and old views stay good
        np.testing.assert_array_equal(shards.clip(row).rgb, kept[row])
    names = {p.name: p.stat().st_mtime_ns for p in cache.iterdir()}
    again = ShardSet.open(uri, cache, limit)
    again.clip(3)
    assert {p.name for p in cache.iterdir()} == names.keys()


def test_a_shard_larger_than_the_cache_is_an_error(
    build: Build, bucket: str, tmp_path: Path
) -> None:
    uri = bucket.format("large")
    build(uri)
    with pytest.raises(ShardError, match="cache_gb"):
        ShardSet.open(uri, tmp_path, 1e-6).clip(0)


def test_damage_in_the_store_or_in_the_cache_is_found(
    build: Build, bucket: str, tmp_path: Path
) -> None:
    uri = bucket.format("damaged")
    build(uri)
    shards = ShardSet.open(uri, tmp_path / "cache")
    shards.clip(0)
    (cached,) = (tmp_path / "cache").iterdir()
    good = cached.read_bytes()
    cached.write_bytes(good[:-1] + b"x")
    ShardSet.open(uri, tmp_path / "cache").clip(0)
    assert cached.read_bytes() == good  # the damaged copy was fetched again
    filesystem, root = fs.FileSystem.from_uri(uri)
    with filesystem.open_output_stream(f"{root}/shard-000001.arrow") as stream:
        size = ShardSet.open(uri, tmp_path / "cache").index["shards"][1]["bytes"]
        stream.write(b"x" * size)
    with pytest.raises(ShardError, match="shard-000001.arrow is damaged"):
        ShardSet.open(uri, tmp_path / "cache").clip(5)


def test_a_store_that_is_down_for_a_while_is_asked_again(tmp_path: Path, free_port: int) -> None:
    """Arrow itself gives up after six seconds."""
    down = tmp_path / "down"
    words = [sys.executable, ROOT / "tests/cluster/s3.py", "127.0.0.1", str(free_port), down]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as server:
        try:
            query = f"endpoint_override=127.0.0.1:{free_port}&scheme=http&region=us-east-1"
            uri = f"s3://bucket/x?{query}&allow_bucket_creation=true"
            wait_for(free_port)
            store = open_store(uri, create=True)
            store.write("a", b"all of it")
            down.touch()
            threading.Timer(8.0, down.unlink).start()
            started = time.monotonic()
            assert store.read("a") == b"all of it"
            assert time.monotonic() - started > 6.0
        finally:
            server.kill()


def wait_for(port: int) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)


@pytest.fixture
def free_port(monkeypatch: pytest.MonkeyPatch) -> int:
    """A port that nobody listens on; the environment has keys for a store there."""
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "test")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_file_uri_is_a_folder(build: Build, tmp_path: Path) -> None:
    build(f"file://{tmp_path}/out")
    shards = ShardSet.open(f"file://{tmp_path}/out")
    assert shards.cache is None and len(shards) == 9 and shards.clip(2).rgb.any()


def test_a_strange_uri_is_a_clear_error() -> None:
    with pytest.raises(ValueError, match="is not a folder that every node sees"):
        ShardSet.open("gopher://somewhere/shards")


@pytest.mark.slow
def test_the_stages_write_to_and_read_from_the_store(
    tree: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = bucket.format("stage")
    words = [f"paths.data={tree}", f"paths.artifacts={tmp_path}", "data.protocol=custom"]
    words += ["data.custom.subjects=[1,2]", f"shard.uri={uri}", "shard.size=16"]
    words += ["shard.clips_per_shard=4", "shard.frames=6", "model.rgb_frames=4"]
    with cluster(RaySection()):
        assert run_stage("index", index.main, words) == 0
        assert run_stage("shard", shard.main, words) == 0
        first = (tmp_path / "shards" / "shards.json").read_bytes()
        assert run_stage("shard", shard.main, words) == 0  # all there: nothing changes
    assert (tmp_path / "shards" / "shards.json").read_bytes() == first
    assert [p.name for p in (tmp_path / "shards").iterdir()] == ["shards.json"]
    assert json.loads(first)["uri"] == uri
    # As the training workers do it: open, split, read batches through the cache.
    monkeypatch.setattr(reader, "DEFAULT_CACHE", tmp_path / "cache")
    config = load_config(ROOT / "params.yaml", words)
    shards, split = open_split(config, uri)
    assert (len(split.train), len(split.val), len(split.test)) == (3, 3, 3)
    clips = ClipDataset(
        shards, range(9), split.classes, rgb_frames=6, rgb_size=16, skeleton_frames=4
    )
    batch = clips.batch(range(9))
    assert batch.rgb.shape == (9, 3, 6, 16, 16) and batch.rgb.std() > 0
    assert len(list((tmp_path / "cache").iterdir())) == 3

    # A stage that fails leaves no index of the shards that were there before.
    monkeypatch.setattr(shard, "write_all", _no_space)
    assert run_stage("shard", shard.main, [*words, "shard.size=24"]) == 2
    assert not (tmp_path / "shards" / "shards.json").exists()


def _no_space(*words: Any) -> Any:
    raise StageError("no space left on node 10.0.0.1")


@pytest.mark.parametrize(
    ("keys", "query", "asked"),
    [
        (("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "&region=here", False),
        (("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "", True),
        (("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"), "", False),
        ((), "&region=here", True),  # a role of the machine
    ],
)
def test_the_metadata_service_is_asked_only_for_what_is_missing(
    keys: tuple[str, ...], query: str, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing answers at 169.254.169.254 each client would wait for it for seconds."""
    switch = NO_METADATA
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(switch, "")  # so that it is put back
    monkeypatch.delenv(switch)
    for name in keys:
        monkeypatch.setenv(name, "here")
    open_store(f"s3://bucket/shards?endpoint_override=127.0.0.1:9&scheme=http{query}")
    assert os.environ.get(switch) == (None if asked else "true")


def test_a_store_travels_without_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """To Ray's readers on other nodes, which have their own."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "my-own-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "my-own-secret")
    store = open_store("s3://bucket/runs?endpoint_override=127.0.0.1:9&scheme=http&region=x")
    # Nor does it hold those that were found when it was opened: a role's end within hours.
    assert fs.S3FileSystem.__reduce__(store.filesystem)[1][0]["access_key"] is None
    sent = pickle.dumps(store.filesystem)
    assert b"my-own" not in sent
    assert pickle.loads(sent).equals(store.filesystem)  # noqa: S301 - made here
