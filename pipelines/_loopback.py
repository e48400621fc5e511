"""Keeps a local Ray on loopback, for which Ray has no public switch on Linux.

The test of open ports (`tests/pipelines`) fails where a new version of Ray no longer heeds this.
"""

import contextlib
import os
from collections.abc import Iterator

import ray

TESTED = "2.60."
if not ray.__version__.startswith(TESTED):
    raise ImportError(
        f"{__name__} uses a private name of Ray {TESTED}x; this is Ray {ray.__version__}. Install "
        "the version in constraints.txt; to change it, run the test of open ports with the new one"
    )

from ray._private import ray_constants  # noqa: E402

LOCAL_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # see `loopback_alone`


@contextlib.contextmanager
def loopback_alone() -> Iterator[None]:
    """A Ray that starts in this block listens on loopback alone, and can have no second node.

    Ray does so by itself on macOS and Windows, where firewalls would ask about each port. On Linux
    it opens some ten ports to the network, whatever `_node_ip_address` says. The processes that it
    starts read the variable; this one has read it already, hence the private name.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(LOCAL_ONLY)
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ[LOCAL_ONLY] = "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before[0]
        if before[1] is None:
            del os.environ[LOCAL_ONLY]
        else:
            os.environ[LOCAL_ONLY] = before[1]
