"""The whole pipeline where nodes share one S3 server and no folder, with nodes and S3 lost."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.nodes import (
    BUCKET,
    IN_S3,
    Cluster,
    lay_down,
    promised,
    start_submit,
    submit,
    until,
    upload_sample,
)  # fmt: skip

NODES = ("head", "one", "two")
WORKSPACE = "/tmp/amr"  # the head's own


def hide(cluster: Cluster, *names: str) -> None:
    """Take the shared folder away from these hosts."""
    for name in names:
        cluster.net[name].run(["mount", "-t", "tmpfs", "tmpfs", "/mnt"])


def restart(cluster: Cluster, name: str) -> None:
    """The host comes back as a new machine, without the shared folder."""
    cluster.restart(name)
    hide(cluster, name)


@pytest.fixture
def nothing_shared(cluster: Cluster) -> Iterator[Path]:
    """No node sees /mnt; the workspace, which is the head's alone."""
    hide(cluster, *NODES)
    yield cluster.net["head"].tmp / "amr"
    for name in NODES:
        if cluster.net[name].outer.poll() is None:
            cluster.net[name].run(["umount", "-l", "/mnt"])


def test_the_pipeline_runs_where_nodes_share_s3_alone(
    cluster: Cluster, undisturbed: dict[str, str], nothing_shared: Path
) -> None:
    upload_sample(cluster.net)
    lay_down(cluster.net["desk"], IN_S3, name="s3")
    running, log = start_submit(cluster.net["desk"], WORKSPACE, project="s3")

    # Tune: the node on which the trial runs is lost; the trial goes on elsewhere.
    until(lambda: "Running stage 'tune" in log.read_text(), running, log)
    until(lambda: cluster.trains("one") or cluster.trains("two"), running, log)
    restart(cluster, "one" if cluster.trains("one") else "two")

    # Train: the cable goes first, as with a power cut, and another machine takes its place.
    until(lambda: "train: epoch 1/" in log.read_text(), running, log)
    cluster.lose("two")
    restart(cluster, "two")
    until(lambda: "going on from the last checkpoint" in log.read_text(), running, log)
    epochs = log.read_text().count("train: epoch ")
    until(lambda: log.read_text().count("train: epoch ") > epochs, running, log)

    # Train, gone on: S3 answers 503 for a while.
    assert "best epoch" not in log.read_text()
    cluster.s3_answers(False)
    time.sleep(8)
    cluster.s3_answers(True)

    assert running.wait(timeout=900) == 0, log.read_text()
    said = log.read_text()
    print(said)
    assert "Running stage 'report@sample'" in said and "Traceback" not in said
    found = promised(nothing_shared)
    assert found == {name: undisturbed[name] for name in found} and len(found) >= 3
    index = json.loads((nothing_shared / "artifacts/sample/shards/shards.json").read_text())
    shards = {f"shards/{shard['file']}": shard["sha256"] for shard in index["shards"]}
    rows = "shards/clips.arrow"  # of which shards.json keeps no digest
    assert found | shards == {name: sha for name, sha in undisturbed.items() if name != rows}


def test_a_node_whose_disk_is_full_is_named(cluster: Cluster, nothing_shared: Path) -> None:
    host = cluster.net["two"]
    host.end()
    host = cluster.net.boot("two")
    hide(cluster, "two")
    host.run(["mkdir", "/tmp/full"])
    host.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", "/tmp/full"])
    cluster.start_worker("two", {"TMPDIR": "/tmp/full", "RAY_TMPDIR": "/tmp"})
    cluster.await_nodes(3)
    other = {"shard": {"uri": BUCKET.format("others"), "size": 32}}
    lay_down(cluster.net["desk"], IN_S3, other, name="full")
    status, log = submit(cluster.net["desk"], WORKSPACE, "shard", project="full")
    host.end()  # it comes back with room
    assert status != 0 and "Traceback" not in log, log
    assert f"no space left on node {host.address}" in log and "run the same command again" in log
    # Nothing looks finished: the stages behind read this file.
    assert not (nothing_shared / "artifacts/sample/shards/shards.json").exists()
