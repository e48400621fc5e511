"""What listens during a run on one machine: nothing beyond loopback (docs/security.md)."""

import ipaddress
import json
import os
from pathlib import Path

import psutil
import pytest
import ray
from ray._private import ray_constants
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from components.config.train import RaySection
from pipelines._cluster import cluster
from pipelines._loopback import LOCAL_ONLY
from pipelines._network import NodeTorchConfig


@pytest.mark.parametrize("set_before", [None, "1"])
def test_a_local_ray_listens_on_loopback_alone(
    monkeypatch: pytest.MonkeyPatch, set_before: str | None
) -> None:
    """Ray's own processes, a worker and this process; and Ray is as before afterwards."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if set_before is not None:
        monkeypatch.setenv(LOCAL_ONLY, set_before)
    before = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(LOCAL_ONLY)
    others = {p.pid for p in psutil.Process().children(recursive=True)}
    with cluster(RaySection()):
        ray.get(ray.remote(lambda: None).remote())
        found = listening(others)
        assert {"gcs_server", "raylet"} <= {name for name, _ in found}, "looked at the wrong ones"
        assert [(name, str(ip)) for name, ip in found if not ip.is_loopback] == []
    assert before == (
        ray_constants.ENABLE_RAY_CLUSTER,
        os.environ.get(LOCAL_ONLY),
    )


@pytest.mark.slow
def test_training_workers_of_one_machine_meet_on_loopback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All sockets of two workers in a process group, listening or connected, but for torch's store.

    Through the store, on rank 0, they find each other; torch lets nobody choose its address.
    """
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def work(spec: dict) -> None:
        import json
        import os
        from pathlib import Path

        import psutil
        import ray.train
        import torch
        import torch.distributed

        torch.distributed.all_reduce(torch.ones(1))
        links = psutil.Process().net_connections("inet")
        rank = ray.train.get_context().get_world_rank()
        store = int(os.environ["MASTER_PORT"])
        links = [link for link in links if link.laddr.port != store or link.raddr]
        ends = [end.ip for link in links for end in (link.laddr, link.raddr) if end]
        Path(spec["folder"], f"{rank}.json").write_text(json.dumps(ends))

    with cluster(RaySection()):
        TorchTrainer(
            work,
            train_loop_config={"folder": str(tmp_path)},
            scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.1}),
            torch_config=NodeTorchConfig(backend="gloo"),
            run_config=RunConfig(storage_path=str(tmp_path / "runs")),
        ).fit()
    for rank in (0, 1):
        ends = json.loads((tmp_path / f"{rank}.json").read_text())
        assert ends and {ip.removeprefix("::ffff:") for ip in ends} <= {"127.0.0.1", "::1"}, ends


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
