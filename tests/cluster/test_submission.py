"""`make submit` from a host that is no node, over two worker hosts, and with hosts lost."""

import shutil
import time
from pathlib import Path

import pytest

from tests.cluster.hosts import ADDRESSES, NET
from tests.cluster.nodes import (
    BIN,
    TRACKING,
    Cluster,
    digests,
    promised,
    start_submit,
    submit,
    until,
)  # fmt: skip

WORKERS = {f"{NET}.{ADDRESSES[name]}" for name in ("one", "two")}
RUNS = (
    f"import mlflow; mlflow.set_tracking_uri('{TRACKING}'); "
    "runs = mlflow.search_runs(search_all_experiments=True, output_format='list'); "
    "print([v.version for v in mlflow.search_model_versions()], len(runs), "
    "runs[0].info.artifact_uri.split(':')[0])"
)


def test_the_pipeline_runs_over_two_nodes(cluster: Cluster, calm: Path) -> None:
    assert cluster.trained_on() == WORKERS
    assert (calm / "artifacts/sample/report/index.html").stat().st_size > 10_000
    # The desk kept nothing, the nodes never had its clone, and the runs are on the MLflow server.
    assert not (cluster.net["desk"].tmp / "project" / "artifacts").exists()
    assert not (calm / "mlflow.db").exists()
    said = cluster.net["desk"].run([BIN / "python", "-c", RUNS]).stdout
    versions, runs, artifacts = said.strip().splitlines()[-1].split()
    assert versions == "['1']" and int(runs) >= 3 and artifacts == "mlflow-artifacts"

    before = digests(calm / "artifacts")
    status, log = submit(cluster.net["desk"], "/mnt/amr")
    assert status == 0, log
    assert "Running stage" not in log and "up to date" in log
    assert digests(calm / "artifacts") == before


@pytest.fixture
def again(cluster: Cluster, calm: Path) -> Path:
    """The workspace before its shards, DVC's cache emptied too."""
    for name in ("shards", "train", "evaluation", "report"):
        shutil.rmtree(calm / "artifacts" / "sample" / name, ignore_errors=True)
    shutil.rmtree(calm / ".dvc" / "cache", ignore_errors=True)
    return calm


def test_lost_nodes_a_lost_head_and_a_cut_network_change_nothing(
    cluster: Cluster, calm: Path, undisturbed: dict[str, str], again: Path
) -> None:
    sample, net = again / "artifacts" / "sample", cluster.net
    running, log = start_submit(net["desk"], "/mnt/amr")

    # Shard: a node's processes end at once, and it comes back.
    until(lambda: len([*sample.glob("shards/*.arrow")]) >= 3, running, log)
    assert len([*sample.glob("shards/*.arrow")]) < 40, "the node was lost too late to be missed"
    cluster.restart("one")

    # Train: the head is lost. The workers have nothing to do without it; they are started anew.
    until(lambda: "epoch 1/" in log.read_text(), running, log)
    assert "best epoch" not in log.read_text()
    net["one"].end()
    net["two"].end()
    cluster.restart("head", "one", "two")
    cluster.await_nodes(3)
    assert running.wait(timeout=300) == 2
    said = log.read_text()
    assert "Traceback" not in said and "run the same command" in said.lower(), said
    assert "Running stage 'tune" not in said  # the shards are the same

    # Train, gone on: the network is cut for 20 s between one node and the rest.
    running, log = start_submit(net["desk"], "/mnt/amr")
    until(lambda: "train: epoch " in log.read_text(), running, log)
    assert "epoch 8/" not in log.read_text()
    net["two"].link(up=False)
    time.sleep(20)
    net["two"].link(up=True)

    # Evaluate: a node is lost for good.
    until(lambda: any(sample.glob("partial/evaluation/*/suite-*.arrow")), running, log)
    net["one"].end()
    assert running.wait(timeout=900) == 0, log.read_text()
    said = log.read_text()
    assert "epoch 1/" not in said  # it was stored before the head was lost
    assert "a worker was lost" not in said  # the cut was too short to count
    print(said)
    assert promised(again) == undisturbed


def test_a_node_without_the_shared_folder_is_named(cluster: Cluster, calm: Path) -> None:
    """Before: it would find no clip readable, and the index would reject half of all."""
    host = cluster.net["two"]
    shutil.copytree(calm / "data", cluster.net.shared / "fresh" / "data")
    host.run(["umount", "-l", "/mnt"])
    status, log = submit(cluster.net["desk"], "/mnt/fresh", "index")
    host.end()  # it comes back with the folder
    assert status != 0 and "FAILED" in log
    assert f"{host.address} misses /mnt/fresh/data/sample" in log and "Traceback" not in log
