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
    start_submit,
    submit,
    until,
)  # fmt: skip

WORKERS = {f"{NET}.{ADDRESSES[name]}" for name in ("one", "two")}
# What the docs promise bit for bit, whatever was lost on the way.
PROMISED = ("shards/*.arrow", "train/*/*/model.safetensors", "evaluation/*.arrow")


@pytest.fixture(scope="module")
def calm(_cluster: Cluster) -> Path:
    """The workspace of a submission that nothing disturbed."""
    status, log = submit(_cluster.net["desk"], "/mnt/amr")
    assert status == 0, log
    assert "SUCCEEDED" in log and "Running stage 'report@sample'" in log
    return _cluster.net.shared / "amr"


def promised(workspace: Path) -> dict[str, str]:
    """Those files and what they hold."""
    folder = workspace / "artifacts" / "sample"
    found = digests(folder)
    return {k: v for k, v in found.items() if any(Path(k).match(form) for form in PROMISED)}


def test_the_pipeline_runs_over_two_nodes(cluster: Cluster, calm: Path) -> None:
    assert cluster.trained_on() == WORKERS
    assert (calm / "artifacts/sample/report/index.html").stat().st_size > 10_000
    # The desk kept nothing, the nodes never had its clone, and the runs are on the MLflow server.
    assert not (cluster.net["desk"].tmp / "project" / "artifacts").exists()
    assert not (calm / "mlflow.db").exists()
    code = (
        f"import mlflow; mlflow.set_tracking_uri('{TRACKING}'); "
        "print([v.version for v in mlflow.search_model_versions()], "
        "len(mlflow.search_runs(search_all_experiments=True)))"
    )
    said = cluster.net["desk"].run([BIN / "python", "-c", code]).stdout
    versions, runs = said.strip().splitlines()[-1].split()
    assert versions == "['1']" and int(runs) >= 3


def test_a_second_submission_does_nothing(cluster: Cluster, calm: Path) -> None:
    before = digests(calm / "artifacts")
    status, log = submit(cluster.net["desk"], "/mnt/amr")
    assert status == 0, log
    assert "Running stage" not in log and "up to date" in log
    assert digests(calm / "artifacts") == before


def test_the_status_of_a_failed_job_comes_back(cluster: Cluster, calm: Path) -> None:
    status, log = submit(cluster.net["desk"], "/mnt/amr", "no-such-stage")
    assert status != 0
    assert "FAILED" in log and "no-such-stage" in log


@pytest.fixture
def again(cluster: Cluster, calm: Path) -> Path:
    """The workspace before its shards: the undisturbed results are put aside, DVC's cache too."""
    aside = cluster.net.shared / "calm"
    if not aside.exists():
        shutil.copytree(calm, aside)
    for name in ("shards", "train", "evaluation", "report"):
        shutil.rmtree(calm / "artifacts" / "sample" / name, ignore_errors=True)
    shutil.rmtree(calm / ".dvc" / "cache", ignore_errors=True)
    return calm


def test_nodes_lost_in_each_stage_change_nothing(cluster: Cluster, again: Path) -> None:
    sample = again / "artifacts" / "sample"
    running, log = start_submit(cluster.net["desk"], "/mnt/amr")

    # Shard: the processes end at once, and the host comes back.
    until(lambda: len([*sample.glob("shards/*.arrow")]) >= 3, running, log)
    written = len([*sample.glob("shards/*.arrow")])
    cluster.net["one"].end()
    assert written < 40, "the node was lost too late to be missed"
    cluster.net.boot("one")
    cluster.start_worker("one")

    # Train: the cable goes first, as with a power cut; another machine takes its place.
    until(lambda: "epoch 1/" in log.read_text(), running, log)
    assert "best epoch" not in log.read_text()
    cluster.lose("two")
    cluster.net.boot("two")
    cluster.start_worker("two")

    # Evaluate: the host is lost for good.
    until(lambda: any(sample.glob("partial/evaluation/*/suite-*.arrow")), running, log)
    cluster.net["one"].end()
    running.wait(timeout=900)
    said = log.read_text()
    print(said)
    assert running.returncode == 0, said
    assert "Running stage 'tune" not in said  # the shards are the same
    assert promised(again) == promised(cluster.net.shared / "calm")


def test_a_lost_head_and_a_cut_network(cluster: Cluster, again: Path) -> None:
    sample, net = again / "artifacts" / "sample", cluster.net
    shutil.copytree(net.shared / "calm/artifacts/sample/shards", sample / "shards")
    running, log = start_submit(net["desk"], "/mnt/amr", "train", "evaluate")
    until(lambda: "epoch 1/" in log.read_text(), running, log)
    net["head"].end()
    for name in ("one", "two"):
        net[name].end()  # without the head they have nothing to do; a person starts them anew
    net.boot("head")
    cluster.start_head()
    for name in ("one", "two"):
        net.boot(name)
        cluster.start_worker(name)
    cluster.await_nodes(3)
    assert running.wait(timeout=300) == 2
    said = log.read_text()
    assert "Traceback" not in said and "run the same command" in said.lower(), said

    running, log = start_submit(net["desk"], "/mnt/amr", "train", "evaluate")
    until(lambda: "train: epoch " in log.read_text(), running, log)
    assert "epoch 8/" not in log.read_text()
    net["two"].link(up=False)
    time.sleep(20)
    net["two"].link(up=True)
    assert running.wait(timeout=900) == 0, log.read_text()
    assert "epoch 1/" not in log.read_text()  # it was stored before the head was lost
    assert promised(again) == promised(net.shared / "calm")


def test_a_node_without_the_shared_folder_is_named(cluster: Cluster, calm: Path) -> None:
    """Before: it would find no clip readable, and the index would reject half of all."""
    host = cluster.net["two"]
    shutil.copytree(calm / "data", cluster.net.shared / "fresh" / "data")
    host.run(["umount", "-l", "/mnt"])
    status, log = submit(cluster.net["desk"], "/mnt/fresh", "index")
    host.end()  # it comes back with the folder
    assert status != 0
    assert f"{host.address} misses /mnt/fresh/data/sample" in log and "Traceback" not in log
