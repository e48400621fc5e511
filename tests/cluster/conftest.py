"""One network of hosts and one Ray cluster for all tests here; see hosts.py and nodes.py.

`make test-cluster` runs them, in the order of their files. Plain `pytest` does not collect this
folder: minutes of real nodes, for which namespaces and root are needed.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import NoNamespaces, network
from tests.cluster.nodes import Cluster, lay_down, lay_sample, promised, submit


@pytest.fixture
def cluster(_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster; a worker host that a test has lost is there again after it."""
    yield _cluster
    _cluster.s3_answers(True)
    for name in ("one", "two"):
        if _cluster.net[name].outer.poll() is not None:
            _cluster.restart(name)
    _cluster.await_nodes(3)


@pytest.fixture(scope="session")
def _cluster() -> Iterator[Cluster]:
    """A head, two workers, a desk with the project, and a host with MLflow and S3; all running."""
    try:
        with network() as net:
            made = Cluster(net)
            made.start_services()
            made.start_head()
            for name in ("one", "two"):
                made.start_worker(name)
            lay_down(net["desk"])
            lay_sample(net)
            made.await_nodes(3)
            net["services"].await_port(5000)
            yield made
    except NoNamespaces as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no hosts to be had here: {error}")


@pytest.fixture(scope="session")
def calm(_cluster: Cluster) -> Path:
    """The workspace of a submission that nothing disturbed."""
    status, log = submit(_cluster.net["desk"], "/mnt/amr")
    assert status == 0, log
    assert "SUCCEEDED" in log and "Running stage 'report@sample'" in log
    return _cluster.net.shared / "amr"


@pytest.fixture(scope="session")
def undisturbed(calm: Path) -> dict[str, str]:
    """The digests of what the docs promise bit for bit, as that submission left it."""
    return promised(calm)
