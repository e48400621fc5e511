"""What listens during a run on one machine: nothing beyond loopback (docs/security.md)."""

import ipaddress

import psutil
import pytest
import ray
from ray._private import ray_constants

from components.config.train import RaySection
from pipelines import _loopback
from pipelines._cluster import cluster


@pytest.mark.parametrize("set_before", [None, "1"])
def test_a_local_ray_listens_on_loopback_alone(
    monkeypatch: pytest.MonkeyPatch, set_before: str | None
) -> None:
    """Ray's own processes, a worker and this process; and Ray is as before afterwards."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if set_before is not None:
        monkeypatch.setenv(_loopback.VARIABLE, set_before)
    before = ray_constants.ENABLE_RAY_CLUSTER, _loopback.os.environ.get(_loopback.VARIABLE)
    others = {p.pid for p in psutil.Process().children(recursive=True)}
    with cluster(RaySection()):
        ray.get(ray.remote(lambda: None).remote())
        found = listening(others)
        assert {"gcs_server", "raylet"} <= {name for name, _ in found}, "looked at the wrong ones"
        assert [(name, str(ip)) for name, ip in found if not ip.is_loopback] == []
    assert before == (
        ray_constants.ENABLE_RAY_CLUSTER,
        _loopback.os.environ.get(_loopback.VARIABLE),
    )


def listening(others: set[int]) -> list[tuple[str, ipaddress.IPv4Address | ipaddress.IPv6Address]]:
    """Name and address of each listening socket of this process and its new children."""
    me = psutil.Process()
    found = []
    for process in [me, *(p for p in me.children(recursive=True) if p.pid not in others)]:
        for link in process.net_connections("inet"):
            if link.status == psutil.CONN_LISTEN:
                ip = ipaddress.ip_address(link.laddr.ip)
                mapped = getattr(ip, "ipv4_mapped", None)  # ::ffff:127.0.0.1 is IPv4's loopback
                found.append((process.name(), mapped or ip))
    return found
