"""Elastic training: it grows when a node joins, shrinks when one is lost, and the batch stays."""

import csv
import math
import shutil
from pathlib import Path

import pytest

from components.training.schedule import lr_factor
from tests.cluster.nodes import AUTH, BIN, SLOW, TRACKING, Cluster, lay_down, until

EPOCHS, CLIPS, BATCH, LR = 32, 40, 8, 0.002
# Ray looks for new nodes once a minute, which the test does not wait for.
DRIVER = """
import functools, sys
from pipelines import _ray, train
from pipelines._stage import run_stage

_ray.ScalingConfig = functools.partial(_ray.ScalingConfig, elastic_resize_monitor_interval_s=2.0)
sys.exit(run_stage("train", train.main, sys.argv[1:]))
"""


@pytest.fixture
def artifacts(cluster: Cluster, calm: Path) -> Path:
    """Artifacts with shards and without models, at /mnt/elastic of the nodes."""
    folder = cluster.net.shared / "elastic"
    shutil.copytree(calm / "artifacts" / "sample" / "shards", folder / "shards")
    return folder


def test_training_grows_with_a_node_and_shrinks_with_its_loss(
    cluster: Cluster, artifacts: Path
) -> None:
    net = cluster.net
    net["two"].run([BIN / "ray", "stop", "--force"])  # which says so: nobody waits for a lost node
    net["two"].end()
    cluster.await_nodes(2)
    project = lay_down(net["head"])
    (project / "elastic.py").write_text(DRIVER)
    words = ["elastic.py", "variant=amr", "ray.address=auto", "ray.workers=1", "ray.max_workers=3"]
    words += [f"train.epochs={EPOCHS}", f"train.batch_size={BATCH}", f"train.lr={LR}"]
    words += ["paths.artifacts=/mnt/elastic", "tune.trials=0"]
    log = net["head"].tmp / "elastic.log"
    environment = {**AUTH, **SLOW, "MLFLOW_TRACKING_URI": TRACKING}
    running = net["head"].start(
        [BIN / "python", *words], cwd="/tmp/project", env=environment, log=log
    )
    history = artifacts / "train" / "amr-s0" / "history.csv"

    until(lambda: "epoch 2/" in log.read_text(), running, log)
    assert cluster.trains("one")
    net.boot("two")
    cluster.start_worker("two")
    until(lambda: cluster.trains("two"), running, log)
    joined = len(history.read_text().splitlines())
    until(lambda: len(history.read_text().splitlines()) >= joined + 2, running, log)
    assert cluster.trains("one") and cluster.trains("two")

    net["one"].end()
    assert running.wait(timeout=600) == 0, log.read_text()
    said = log.read_text()
    assert "failed" in said and "going on from the last checkpoint" in said, said

    rows = list(csv.DictReader(history.open()))
    # One more fits the fusion's weights, at a rate of its own (train.stack_epochs).
    assert [int(row["epoch"]) for row in rows] == list(range(1, EPOCHS + 2))
    # The global batch, and so the number of steps and the learning rate, are those of any group.
    steps = math.ceil(CLIPS / BATCH)
    for row in rows[:EPOCHS]:
        done = (int(row["epoch"]) - 1 + (steps - 1) / steps) / EPOCHS
        assert float(row["lr"]) == pytest.approx(LR * lr_factor(done), rel=1e-3)
    assert (artifacts / "train" / "amr-s0" / "best" / "model.safetensors").is_file()
