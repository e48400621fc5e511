"""Workers of one run meet over the network that Ray uses: between nodes, or on loopback alone.

By default gloo listens on the address that the host's own name resolves to, which on many systems
is a loopback address (127.0.1.1 in Debian's /etc/hosts): then machines never meet.
"""

import os
import socket
from collections.abc import Callable
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig

LOOPBACK = "127.0.0.1"  # of a local Ray, see `_cluster.loopback_alone`
VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def interface_of(ip: str, interfaces: dict[str, list[Any]] | None = None) -> str | None:
    """The network interface that has this address; None when no single one has."""
    known = psutil.net_if_addrs() if interfaces is None else interfaces
    families = (socket.AF_INET, socket.AF_INET6)
    having = [
        name
        for name, addresses in known.items()
        if any(a.family in families and a.address.partition("%")[0] == ip for a in addresses)
    ]
    return having[0] if len(having) == 1 else None


def use_rays_interface() -> None:
    """In a worker: gloo and NCCL take the interface by which Ray knows this node.

    What the environment says already stays.
    """
    name = interface_of(ray.util.get_node_ip_address())
    if name is not None:
        for variable in VARIABLES:
            os.environ.setdefault(variable, name)


class NodeTorchConfig(TorchConfig):
    """Ray's torch backend, on the interface that carries Ray.

    Within one node of a cluster it is left to torch, which needs no network there.
    """

    @property
    def backend_cls(self) -> type:
        """Ray's backend class, with the interface set before the workers meet."""
        base: type = super().backend_cls
        return type("NodeTorchBackend", (base,), {"on_start": _after_interface(base)})


def _after_interface(base: Any) -> Callable[..., None]:
    def on_start(self: Any, worker_group: Any, backend_config: TorchConfig) -> None:
        nodes = set(worker_group.execute(ray.util.get_node_ip_address))
        if len(nodes) > 1 or nodes == {LOOPBACK}:
            worker_group.execute(use_rays_interface)
        base.on_start(self, worker_group, backend_config)

    return on_start
