"""One network of hosts and one Ray cluster for all tests here; see hosts.py and nodes.py.

`make test-cluster` runs them. Plain `pytest` does not collect this folder (`conftest.py` of the
tests above): minutes of real nodes, for which namespaces and root are needed.
"""

import os
from collections.abc import Iterator

import pytest

from tests.cluster.hosts import NoNamespaces, network
from tests.cluster.nodes import Cluster, lay_down, lay_sample


@pytest.fixture
def cluster(_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster; a worker host that a test has lost is there again after it."""
    yield _cluster
    for name in ("one", "two"):
        if _cluster.net[name].outer.poll() is not None:
            _cluster.net.boot(name)
            _cluster.start_worker(name)
    _cluster.await_nodes(3)


@pytest.fixture(scope="session")
def _cluster() -> Iterator[Cluster]:
    """A head, two workers, a desk with the project, and a host with MLflow; all running."""
    try:
        with network() as net:
            made = Cluster(net)
            made.start_tracking()
            made.start_head()
            for name in ("one", "two"):
                made.start_worker(name)
            lay_down(net["desk"])
            lay_sample(net)
            made.await_nodes(3)
            made.await_tracking()
            yield made
    except NoNamespaces as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no hosts to be had here: {error}")
