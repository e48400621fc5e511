"""A Ray cluster on the hosts of `hosts.py`, as `deploy/ray/README.md` says, and jobs sent to it."""

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests._support.project import ROOT, commit, copy_project
from tests.cluster.hosts import ADDRESSES, NET, Host, Network

BIN = Path(sys.prefix) / "bin"
HEAD = f"{NET}.{ADDRESSES['head']}"
DASHBOARD = f"http://{HEAD}:8265"
SERVICES = f"{NET}.{ADDRESSES['services']}"
TRACKING = f"http://{SERVICES}:5000"
S3 = f"{SERVICES}:9000"
BUCKET = f"s3://amr/{{}}?endpoint_override={S3}&scheme=http&region=us-east-1"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
TOKEN = "0123456789abcdef" * 4  # of a cluster that lives for minutes
AUTH = {"RAY_AUTH_MODE": "token"}  # a worker's `ray start` does not look for a token by itself
# A lost machine is noticed in 35 s, not in Ray's 65 s, so that tests take less time. A cut of 20 s
# must still not count as one: TCP, which waits twice as long each time, tries again after 25 s.
NOTICE = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "4000",
    "RAY_health_check_failure_threshold": "7",
}
# An epoch lasts as long as Ray Train lets it, so that there is time to lose a node in it.
SLOW = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "2"}
SMALL = {
    "sample": {"clips_per_class": 6},
    "shard": {"clips_per_shard": 2, "frames": 8, "size": 48},
    "train": {"epochs": 8, "stack_epochs": 1, "batch_size": 8, "val_clips": 8},
    "tune": {"trials": 1, "epochs": 2, "workers": 1},
    "evaluate": {"suite": "thin", "curve_clips": 0, "batch_size": 4, "checks": False},
    "ray": {"workers": 2},
}
# What the nodes of the second set share: one S3 server, and no folder.
IN_S3 = {
    "paths": {"data_uri": BUCKET.format("raw")},
    "shard": {"uri": BUCKET.format("shards")},
    "ray": {"storage": BUCKET.format("runs")},
}
PROMISED = ("shards/*.arrow", "train/*/*/model.safetensors", "evaluation/*-s0.arrow")
ASK = (
    "import sys, urllib.request as u; "
    "r = u.Request(sys.argv[1], headers={'Authorization': 'Bearer ' + sys.argv[2]}); "
    "print(u.urlopen(r, timeout=20).read().decode())"
)
UPLOAD = """
import sys
from pyarrow import fs
where, root = fs.FileSystem.from_uri(sys.argv[1] + "&allow_bucket_creation=true")
where.create_dir(root, recursive=True)
fs.copy_files(sys.argv[2], root, destination_filesystem=where)
"""


class Cluster:
    """Ray on the head and its workers; jobs come from the desk, runs go to the services host."""

    def __init__(self, net: Network) -> None:
        self.net = net

    def start_head(self) -> None:
        """Ray's head, which runs jobs and no tasks."""
        self._ray("head", {}, "--head", "--num-cpus=0", f"--dashboard-host={HEAD}")

    def start_worker(self, name: str, variables: Mapping[str, str] | None = None) -> None:
        """Ray on a worker host, with one CPU."""
        self._ray(name, variables or {}, f"--address={HEAD}:6379", "--num-cpus=1")

    def restart(self, *names: str) -> None:
        """Hosts that are gone, or go now, come back as new machines with their Ray."""
        for name in names:
            self.net[name].end()
            self.net.boot(name)
            self.start_head() if name == "head" else self.start_worker(name)

    def _ray(self, name: str, variables: Mapping[str, str], *words: str) -> None:
        """`ray start` by its path: nothing is activated, and the PATH knows no Python with Ray."""
        give_token(self.net[name])
        # Ray's workers step back for whatever else the machine does; these are to be waited for.
        environment = {**AUTH, **KEYS, "RAY_worker_niceness": "0", **NOTICE, **SLOW}
        environment |= variables
        start = [BIN / "ray", "start", *words, "--object-store-memory=100000000"]
        for _ in range(3):
            done = self.net[name].run(start, env=environment, check=False)
            if done.returncode == 0:
                return
            # On a busy machine Ray gives up after 30 s.
            assert "timed out during startup" in done.stdout, done.stdout
            self.net[name].run([BIN / "ray", "stop", "--force"], env=environment)
        raise AssertionError(done.stdout)

    def lose(self, name: str) -> None:
        """The cable goes first, and the host's processes with it: nobody is told."""
        self.net[name].link(up=False)
        self.net[name].end()

    def listed(self, what: str, **equal: str) -> list[dict[str, Any]]:
        """What the dashboard lists of nodes or actors."""
        query = "".join(
            f"&filter_keys={key}&filter_predicates=%3D&filter_values={value}"
            for key, value in equal.items()
        )
        url = f"{DASHBOARD}/api/v0/{what}?limit=1000&detail=true{query}"
        said = self.net["head"].run([sys.executable, "-c", ASK, url, TOKEN]).stdout
        return json.loads(said)["data"]["result"]["result"]

    def alive(self) -> set[str]:
        """The addresses of the nodes that Ray counts as alive."""
        return {node["node_ip"] for node in self.listed("nodes", state="ALIVE")}

    def trained_on(self) -> set[str]:
        """The addresses of the nodes on which training workers have run."""
        addresses = {node["node_id"]: node["node_ip"] for node in self.listed("nodes")}
        actors = self.listed("actors", class_name="RayTrainWorker")
        return {addresses[actor["node_id"]] for actor in actors if actor["node_id"]}

    def trains(self, name: str) -> bool:
        """Whether a training worker runs on that host, past its start."""
        return any("RayTrainWorker" in words for words in self.net[name].processes())

    def await_nodes(self, count: int, seconds: float = 180) -> None:
        """Return when so many nodes are alive."""
        deadline = time.monotonic() + seconds
        while len(self.alive()) != count:
            assert time.monotonic() < deadline, f"{self.alive()} after {seconds:.0f} s"
            time.sleep(0.5)

    def start_services(self) -> None:
        """An S3 server, and MLflow on PostgreSQL that keeps its artifacts there, on one host."""
        host = self.net["services"]
        host.start(
            [BIN / "python", ROOT / "tests/cluster/s3.py", "0.0.0.0", "9000", "/tmp/s3-down"]
        )
        host.await_port(9000)
        words = [BIN / "python", ROOT / "deploy/mlflow/server.py", "--folder=/tmp/mlflow"]
        words += [f"--host={SERVICES}", f"--s3=http://{S3}", "--workers=1"]
        host.start(words, env=KEYS)

    def s3_answers(self, answers: bool) -> None:
        """Whether the S3 server works, or says 503 to everything."""
        flag = self.net["services"].tmp / "s3-down"
        flag.unlink(missing_ok=True) if answers else flag.touch()


def give_token(host: Host) -> None:
    """The cluster's token, where Ray looks for it."""
    folder = host.tmp / "home" / ".ray"
    folder.mkdir(exist_ok=True)
    (folder / "auth_token").write_text(TOKEN)


def lay_down(host: Host, *settings: Mapping[str, Mapping[str, Any]], name: str = "project") -> Path:
    """A clone of the project on that host alone, small; its folder as this machine sees it."""
    folder = copy_project(host.tmp / name, ["amr"], SMALL, *settings)
    (folder / ".venv").symlink_to(sys.prefix)
    commit(folder)
    give_token(host)
    return folder


def lay_sample(net: Network) -> None:
    """The synthetic sample in the workspace: the nodes' /mnt/amr, which the desk does not see."""
    words = ["-m", "pipelines.sample", f"paths.data={net.shared}/amr/data/sample"]
    words += [f"sample.{key}={value}" for key, value in SMALL["sample"].items()]
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)


def upload_sample(net: Network) -> None:
    """The same files in S3, by a process of this machine with the network of the desk."""
    enter = [
        "nsenter",
        "-t",
        str(net["desk"].first),
        "-n",
        "env",
        *(f"{k}={v}" for k, v in KEYS.items()),
    ]
    words = [sys.executable, "-c", UPLOAD, BUCKET.format("raw"), net.shared / "amr/data/sample"]
    subprocess.run([*enter, *map(str, words)], check=True, timeout=120)


def submit_words(workspace: str, *stages: str) -> list[str]:
    """What a person types; the environment counts as installed."""
    words = ["make", "-s", "-o", ".venv/.installed", "submit", f"RAY_ADDRESS={DASHBOARD}"]
    return [*words, f"WORKSPACE={workspace}", f"STAGES={' '.join(stages)}"]


def start_submit(
    desk: Host, workspace: str, *stages: str, project: str = "project"
) -> tuple[subprocess.Popen[str], Path]:
    """`make submit` from the desk, running; the process and its log."""
    log = desk.tmp / f"submit-{len(desk.started)}.log"
    words = submit_words(workspace, *stages)
    environment = {"MLFLOW_TRACKING_URI": TRACKING}
    return desk.start(words, cwd=f"/tmp/{project}", env=environment, log=log), log


def submit(desk: Host, workspace: str, *stages: str, project: str = "project") -> tuple[int, str]:
    """`make submit` from the desk, to its end: exit status and log."""
    running, log = start_submit(desk, workspace, *stages, project=project)
    return running.wait(timeout=900), log.read_text()


def until(ready: Callable[[], bool], running: subprocess.Popen[str], log: Path) -> None:
    """Return when `ready()` holds; AssertionError with the log when `running` ended before."""
    while not ready():
        assert running.poll() is None, log.read_text()
        time.sleep(0.1)


def digests(folder: Path) -> dict[str, str]:
    """Each file below, and what it holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def promised(workspace: Path) -> dict[str, str]:
    """What the docs promise bit for bit, whatever is lost on the way: those files' digests."""
    found = digests(workspace / "artifacts" / "sample")
    return {name: sha for name, sha in found.items() if any(map(Path(name).match, PROMISED))}
