"""`make submit` from a host that is no node, over two worker hosts, with nothing lost."""

from pathlib import Path

from tests.cluster.hosts import ADDRESSES, NET
from tests.cluster.nodes import BIN, TRACKING, Cluster, digests, submit

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
