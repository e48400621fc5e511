"""A Ray cluster on the hosts of `hosts.py`, as `deploy/ray/README.md` says, and jobs sent to it."""

import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.hosts import ADDRESSES, NET, ROOT, Host, Network

BIN = Path(sys.prefix) / "bin"
HEAD = f"{NET}.{ADDRESSES['head']}"
DASHBOARD = f"http://{HEAD}:8265"
TRACKING = f"http://{NET}.{ADDRESSES['services']}:5000"
TOKEN = "0123456789abcdef" * 4  # of a cluster that lives for minutes
AUTH = {"RAY_AUTH_MODE": "token"}  # a worker's `ray start` does not look for a token by itself
# A lost machine is noticed in 25 s instead of Ray's 65 s, so that tests take less time; a cut of
# 20 s must still not count as one.
NOTICE = {"RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "4000"}
CODE = (
    "components", "pipelines", "mlflow_tracking", "recipes", "dvc.yaml", "data.dvc", "Makefile",
    "params.yaml", "pyproject.toml", "constraints.txt", ".dvcignore",
)  # fmt: skip
SMALL = {
    "sample": {"clips_per_class": 6},
    "shard": {"clips_per_shard": 2, "frames": 8, "size": 48},
    "train": {"epochs": 8, "stack_epochs": 1, "batch_size": 8, "val_clips": 8},
    "tune": {"trials": 1, "epochs": 1, "workers": 1},
    "evaluate": {"suite": "thin", "curve_clips": 0, "batch_size": 4, "checks": False},
    "ray": {"workers": 2},
}


class Cluster:
    """Ray on the head and its workers; jobs come from the desk, runs go to the services host."""

    def __init__(self, net: Network) -> None:
        self.net = net

    def start_head(self) -> None:
        """Ray's head, which runs jobs and no tasks."""
        self._token(self.net["head"])
        self._ray("head", "--head", "--num-cpus=0", f"--dashboard-host={HEAD}")

    def start_worker(self, name: str, cpus: int = 1) -> None:
        """Ray on a worker host."""
        self._token(self.net[name])
        self._ray(name, f"--address={HEAD}:6379", f"--num-cpus={cpus}")

    def _ray(self, name: str, *words: str) -> None:
        """`ray start` by its path: nothing is activated, and the PATH knows no Python with Ray."""
        # Ray's workers step back for whatever else the machine does; these are to be waited for.
        environment = {**AUTH, "RAY_worker_niceness": "0", **NOTICE}
        start = [BIN / "ray", "start", *words, "--object-store-memory=100000000"]
        for _ in range(3):
            done = self.net[name].run(start, env=environment, check=False)
            if done.returncode == 0:
                return
            # On a busy machine Ray gives up after 30 s.
            assert "timed out during startup" in done.stdout, done.stdout
            self.net[name].run([BIN / "ray", "stop", "--force"], env=environment)
        raise AssertionError(done.stdout)

    def _token(self, host: Host) -> None:
        folder = host.tmp / "home" / ".ray"
        folder.mkdir(exist_ok=True)
        (folder / "auth_token").write_text(TOKEN)

    def lose(self, name: str) -> None:
        """The host's processes end and its cable with them."""
        self.net[name].link(up=False)
        self.net[name].end()

    def listed(self, what: str, *words: str) -> list[dict[str, Any]]:
        """What `ray list nodes` or `ray list actors` says."""
        list_it = [BIN / "ray", "list", what, "--format=json", "--limit=1000", *words]
        said = self.net["head"].run([*list_it, f"--address={DASHBOARD}"], env=AUTH).stdout
        return json.loads(said[said.index("[") :])

    def alive(self) -> set[str]:
        """The addresses of the nodes that Ray counts as alive."""
        return {node["node_ip"] for node in self.listed("nodes", "--filter", "state=ALIVE")}

    def trained_on(self) -> set[str]:
        """The addresses of the nodes on which training workers have run."""
        addresses = {node["node_id"]: node["node_ip"] for node in self.listed("nodes")}
        actors = self.listed("actors", "--detail", "--filter", "class_name=RayTrainWorker")
        return {addresses[actor["node_id"]] for actor in actors if actor["node_id"]}

    def await_nodes(self, count: int, seconds: float = 180) -> None:
        """Return when so many nodes are alive."""
        deadline = time.monotonic() + seconds
        while len(self.alive()) != count:
            assert time.monotonic() < deadline, f"{self.alive()} after {seconds:.0f} s"
            time.sleep(0.5)

    def start_tracking(self) -> None:
        """An MLflow server on a host of its own."""
        host = self.net["services"]
        words = [BIN / "mlflow", "server", "--host=0.0.0.0", "--port=5000", "--workers=1"]
        words += ["--backend-store-uri=sqlite:////tmp/mlflow.db", "--allowed-hosts=*"]
        words += ["--artifacts-destination=/tmp/mlartifacts"]
        host.start(words, env={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})

    def await_tracking(self, seconds: float = 120) -> None:
        """Return when the MLflow server answers."""
        code = (
            f"import urllib.request as u; print(u.urlopen('{TRACKING}/health', timeout=3).status)"
        )
        deadline = time.monotonic() + seconds
        while (
            "200" not in self.net["services"].run([sys.executable, "-c", code], check=False).stdout
        ):
            assert time.monotonic() < deadline, "the MLflow server does not answer"
            time.sleep(0.5)


def lay_down(host: Host, **changes: dict[str, object]) -> Path:
    """A clone of the project on that host alone, small; its folder as this machine sees it."""
    folder = host.tmp / "project"
    folder.mkdir()
    for name in CODE:
        source = ROOT / name
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, ignore=ignore)
        else:
            shutil.copy2(source, folder / name)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["compare"] = ["amr"]
    for section, values in (SMALL | changes).items():
        params[section] = {**params[section], **SMALL.get(section, {}), **values}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.copy(ROOT / ".gitignore", folder)
    (folder / ".venv").symlink_to(sys.prefix)
    me = ["-c", "user.name=t", "-c", "user.email=t@t.invalid"]
    for words in (["init", "-q"], ["add", "-A"], [*me, "commit", "-qm", "start"]):
        subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)
    (host.tmp / "home" / ".ray").mkdir(exist_ok=True)
    (host.tmp / "home" / ".ray" / "auth_token").write_text(TOKEN)
    return folder


def lay_sample(net: Network) -> None:
    """The synthetic sample in the workspace: the nodes' /mnt/amr, which the desk does not see."""
    words = ["-m", "pipelines.sample", f"paths.data={net.shared}/amr/data/sample"]
    words += [f"sample.{key}={value}" for key, value in SMALL["sample"].items()]
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)


def submit_words(workspace: str, *stages: str) -> list[str]:
    """What a person types; the environment counts as installed."""
    words = ["make", "-s", "-o", ".venv/.installed", "submit", f"RAY_ADDRESS={DASHBOARD}"]
    return [*words, f"WORKSPACE={workspace}", f"STAGES={' '.join(stages)}"]


def start_submit(desk: Host, workspace: str, *stages: str) -> tuple[subprocess.Popen[str], Path]:
    """`make submit` from the desk, running; the process and its log."""
    log = desk.tmp / f"submit-{len(desk.started)}.log"
    words = submit_words(workspace, *stages)
    environment = {"MLFLOW_TRACKING_URI": TRACKING}
    return desk.start(words, cwd="/tmp/project", env=environment, log=log), log


def until(ready: Callable[[], bool], running: subprocess.Popen[str], log: Path) -> None:
    """Return when `ready()` holds; AssertionError with the log when `running` ended before."""
    while not ready():
        assert running.poll() is None, log.read_text()
        time.sleep(0.02)


def submit(desk: Host, workspace: str, *stages: str, seconds: float = 900) -> tuple[int, str]:
    """`make submit` from the desk, to its end: exit status and log."""
    done = desk.run(
        submit_words(workspace, *stages), cwd="/tmp/project",
        env={"MLFLOW_TRACKING_URI": TRACKING}, seconds=seconds, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def digests(folder: Path) -> dict[str, str]:
    """Each file below, and what it holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
