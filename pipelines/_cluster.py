"""Ray for the stages: start one of this machine alone, or join a cluster; `_tasks.py` uses it."""

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError

from components.address import PROBE_SECONDS, Address, parse_address, probe
from components.config.train import RaySection
from components.cpus import usable_cpus
from components.shards.storage import NO_METADATA
from pipelines._loopback import loopback_alone
from pipelines._package import package
from pipelines._shared_folders import check_seen_by_all
from pipelines._stage import ROOT, StageError
from pipelines._tasks import Cluster, on_each_node
from pipelines._terminal import colour_ray

log = logging.getLogger("cluster")

# A local Ray has no dashboard, so nobody to show metrics or worker logs to; collecting them takes
# time from the cores that the workers compute on. What is set already stays.
QUIET = {
    "RAY_enable_metrics_collection": "0",
    "RAY_io_context_monitor_probe_interval_ms": "10000",
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",
    "LOG_NAME_UPDATE_INTERVAL_S": "86400",
}
# Stages say what matters; the rest is in Ray's own logs.
SAYS_LITTLE: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
TOKEN_NOTICE = "ray._private.authentication.authentication_token_setup"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
OBJECT_STORE = 256 * 2**20  # batches never pass through it, so it stays small


@contextlib.contextmanager
def cluster(
    section: RaySection, *, read: Sequence[Path] = (), written: Sequence[Path] = ()
) -> Iterator[Cluster]:
    """Join the Ray that runs in this process or at `ray.address`, else start a local one.

    A local one ends with the block. Raises StageError when the cluster does not answer, or when
    one of its nodes does not see the folders that the stage reads and writes.
    """
    if ray.is_initialized():
        yield Cluster(_cpus(), own=False)
        return
    colour_ray()
    address = cluster_address(section)
    if address is None:
        _start_local()
    else:
        _join(address)
    try:
        if address is not None:
            check_seen_by_all(read, written, on_each_node)
        yield Cluster(_cpus(), own=address is None)
    finally:
        ray.shutdown()


def is_local(section: RaySection) -> bool:
    """Whether the stages start a Ray of their own on this machine, and join none."""
    return cluster_address(section) is None


def cluster_address(section: RaySection) -> Address | str | None:
    """`ray.address`, else RAY_ADDRESS; "auto" is the cluster that this machine belongs to.

    None for a Ray of this machine alone. UserError for what is no address of a cluster.
    """
    given = section.address.strip()
    if not given:
        given = os.environ.get("RAY_ADDRESS", "").strip()
        # Inside a submitted job Ray sets it. `make submit` takes the job server's, which is http.
        given = "" if given.startswith(("http://", "https://")) else given
    if given in ("", "local"):
        return None
    return given if given == "auto" else parse_address(given, "cluster")


def unreachable(address: Address, seconds: float = PROBE_SECONDS) -> str:
    """Why no cluster can be joined there, found out in seconds; "" when nothing speaks against.

    On joining, Ray puts this machine's own address in the place of a loopback one, and waits for
    minutes where nobody listens at that, as behind a tunnel.
    """
    own = ray.util.get_node_ip_address()
    if (reason := probe(address, seconds)) or address.scheme != "host":
        return reason
    if address.host not in LOOPBACK or own in LOOPBACK:
        return ""
    if reason := probe(replace(address, host=own), seconds):
        return f"Ray takes {address.host} for this machine's own address {own}, and {reason}"
    return ""


def _join(address: Address | str) -> None:
    where = address if isinstance(address, str) else address.masked
    if isinstance(address, Address) and (reason := unreachable(address)):
        raise StageError(
            f"no Ray cluster at {where}: {reason}. Start one (`ray start --head`), or correct "
            "ray.address or RAY_ADDRESS; empty is a Ray of this machine alone"
        )
    uri = address if isinstance(address, str) else address.uri
    try:
        if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:  # a job, which has brought the project
            ray.init(address=uri, runtime_env=_environment(), **SAYS_LITTLE)
            return
        with package(ROOT) as sent:
            for line in sent.describe():
                log.info(line)
            brought = _environment() | {"working_dir": str(sent.folder)}
            ray.init(address=uri, runtime_env=brought, **SAYS_LITTLE)
    except (AuthenticationError, ConnectionError, RuntimeError) as error:
        reason = f"no Ray cluster at {where}: {error}"
        if isinstance(address, Address) and not isinstance(error, RuntimeError):
            # Somebody speaks Ray's language there, or `unreachable` would have said so.
            reason = (
                f"the Ray at {where} does not take this machine in ({error}). Most often it asks "
                "for its token: put the head's ~/.ray/auth_token into RAY_AUTH_TOKEN, or name its "
                "file in RAY_AUTH_TOKEN_PATH"
            )
        raise StageError(reason) from error


def _environment() -> dict[str, Any]:
    """What `open_store` found out holds for Ray's own readers on the nodes, too."""
    found = os.environ.get(NO_METADATA)
    return {"env_vars": {NO_METADATA: found}} if found else {}


def _start_local(tries: int = 3) -> None:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    # That it has made itself a token is good, and nothing to act on; it would say so at each start.
    logging.getLogger(TOKEN_NOTICE).setLevel(logging.ERROR)
    for left in reversed(range(tries)):
        try:
            with loopback_alone():
                ray.init(
                    address="local",
                    num_cpus=usable_cpus(),
                    object_store_memory=OBJECT_STORE,
                    include_dashboard=False,
                    **SAYS_LITTLE,
                )
            return
        except Exception as error:  # noqa: BLE001 - Ray has no type of its own for a slow start
            if "timed out during startup" not in str(error):
                if isinstance(error, (ConnectionError, RuntimeError)):
                    raise StageError(f"no Ray on this machine: {error}") from error
                raise
            ray.shutdown()
            if not left:
                raise StageError(f"no Ray on this machine: {error}") from error
            log.warning("this machine is busy and Ray did not start in time; trying again")


def _cpus() -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))
