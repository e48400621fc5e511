"""A trial whose two workers sit on two nodes, with its checkpoints in S3, outlives one of them."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ray
from pyarrow import fs
from ray.cluster_utils import Cluster

from pipelines import tune
from pipelines._stage import run_stage

SMALL = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, fs.FileSystem]]:
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    query = f"endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    filesystem, _ = fs.FileSystem.from_uri(f"s3://runs?{query}&allow_bucket_creation=true")
    filesystem.create_dir("runs")
    yield f"s3://runs/deep?{query}", filesystem
    server.stop()


@pytest.fixture
def nodes(bucket: object) -> Iterator[Cluster]:
    """Two nodes with a CPU each; started after the bucket, whose keys they inherit."""
    made = Cluster(initialize_head=True, head_node_args=SMALL)
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.mark.slow
def test_a_trial_on_two_nodes_goes_on_when_one_is_lost(
    tmp_path: Path,
    tiny_shards: Path,
    tiny_search: list[str],
    bucket: tuple[str, fs.FileSystem],
    nodes: Cluster,
) -> None:
    artifacts = tmp_path / "artifacts"
    artifacts.mkdir()
    (artifacts / "shards").symlink_to(tiny_shards)
    lost = nodes.add_node(node_ip_address="127.0.0.2", **SMALL)

    def told() -> list[dict]:
        files = list((artifacts / "tune" / "searches").glob("*/ledger.jsonl"))
        return [json.loads(line) for f in files for line in f.read_text().splitlines()]

    words = [
        f"paths.artifacts={artifacts}", f"tracking.uri=sqlite:///{tmp_path / 'mlflow.db'}",
        f"ray.storage={bucket[0]}", *tiny_search,
        "tune.workers=2", "tune.trials=1", "tune.epochs=12",
    ]  # fmt: skip
    with ThreadPoolExecutor(1) as beside:  # Ray starts nodes in the main thread alone
        search = beside.submit(run_stage, "tune", tune.main, words)
        while not any(event["event"] == "epoch" for event in told()) and not search.done():
            time.sleep(0.1)
        stored = bucket[1].get_file_info(fs.FileSelector("runs/deep", recursive=True))
        nodes.remove_node(lost, allow_graceful=False)
        nodes.add_node(node_ip_address="127.0.0.3", wait=False, **SMALL)
        assert search.result() == 0
    assert any("checkpoint" in info.path for info in stored)
    kinds = [event["event"] for event in told()]
    assert kinds.count("epoch") == 12 and kinds.count("start") == 1
    assert [e["status"] for e in told() if e["event"] == "end"] == ["completed"]
    left = bucket[1].get_file_info(fs.FileSelector("runs", recursive=True))
    assert not [info for info in left if info.type == fs.FileType.File], "not swept"
