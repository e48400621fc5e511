"""`make submit` from a host that is no node, over two worker hosts that are lost on the way."""

import shutil
import time
from pathlib import Path

import pytest

from tests.cluster.nodes import Cluster, promised, start_submit, submit, until


@pytest.fixture
def again(cluster: Cluster, calm: Path) -> Path:
    """The workspace before its shards, DVC's cache emptied too."""
    for name in ("shards", "train", "evaluation", "partial", "report"):
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
