"""A trial whose two workers sit on two nodes, with its checkpoints in S3, outlives one of them."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from pipelines import tune
from pipelines._stage import run_stage

SMALL = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}


@pytest.fixture
def nodes(bucket: str) -> Iterator[Cluster]:
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
    bucket: str,
    nodes: Cluster,
    files_in: Callable[[str], list[str]],
) -> None:
    artifacts = tmp_path / "artifacts"
    artifacts.mkdir()
    (artifacts / "shards").symlink_to(tiny_shards)
    lost = nodes.add_node(node_ip_address="127.0.0.2", **SMALL)

    def trials() -> list[dict]:
        files = (artifacts / "tune" / "trials").glob("[0-9]*.json")
        return [json.loads(file.read_text()) for file in files]

    words = [
        f"paths.artifacts={artifacts}", f"tracking.uri=sqlite:///{tmp_path / 'mlflow.db'}",
        f"ray.storage={bucket.format('deep')}", *tiny_search,
        "tune.workers=2", "tune.trials=1", "tune.epochs=12",
    ]  # fmt: skip
    with ThreadPoolExecutor(1) as beside:  # Ray starts nodes in the main thread alone
        search = beside.submit(run_stage, "tune", tune.main, words)
        while not any(trial["rows"] for trial in trials()) and not search.done():
            time.sleep(0.1)
        stored = files_in(bucket.format("deep"))
        nodes.remove_node(lost, allow_graceful=False)
        nodes.add_node(node_ip_address="127.0.0.3", wait=False, **SMALL)
        assert search.result() == 0
    assert any("checkpoint" in path for path in stored)
    (trial,) = trials()
    assert trial["status"] == "completed"
    assert [row["epoch"] for row in trial["rows"]] == list(range(1, 13))
    assert not files_in(bucket.format("")), "not swept"
