"""A local Ray listens on loopback alone."""

import contextlib
import os
from collections.abc import Iterator

from ray._private import ray_constants

VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@contextlib.contextmanager
def loopback_alone() -> Iterator[None]:
    """A Ray that starts in this block listens on loopback alone, and can have no second node.

    Ray does so by itself on macOS and Windows, where firewalls would ask about each port. On Linux
    it opens some ten ports to the network, whatever `_node_ip_address` says. The processes that it
    starts read the variable; this one has read it already, hence the private name (Ray 2.60). The
    test of open ports fails where a new version of Ray no longer knows it.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(VARIABLE)
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ[VARIABLE] = "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before[0]
        if before[1] is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before[1]
