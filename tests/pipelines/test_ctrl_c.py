"""Ctrl-C, as a terminal sends it to all processes of a command, ends the long stages soon."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import index
from pipelines._stage import GOES_ON, run_stage
from tests._support.cli import ROOT, Project, finished_project, heeds_ctrl_c

PATIENCE = 240.0  # until a stage is at work


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Sample, shards, a model and its evaluation."""
    made = finished_project(tmp_path_factory.mktemp("project"))
    assert run_stage("index", index.main, [*made.words, "index.check=names"]) == 0
    return made


class Stopped:
    """A stage in a process group of its own, as a shell starts it, that was stopped at work."""

    def __init__(self, words: list[str], at_work: Callable[[], bool], log: Path, uri: str) -> None:
        environment = os.environ | {"MLFLOW_TRACKING_URI": uri}
        with log.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", *words],
                cwd=ROOT, stdout=out, stderr=out, env=environment, start_new_session=True,
                preexec_fn=heeds_ctrl_c,
            )  # fmt: skip
        try:
            end = time.monotonic() + PATIENCE
            while not at_work():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.02)
            os.killpg(process.pid, signal.SIGINT)
            self.status = process.wait(60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.text = log.read_text()
        end = time.monotonic() + 20
        while (left := _session(process.pid)) and time.monotonic() < end:
            time.sleep(0.1)
        self.left = left


def _session(leader: int) -> list[str]:
    """The command lines of what is left of a session that was started by `leader`."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "stat").read_text().rpartition(")")[2].split()
            if int(words[3]) == leader and words[0] != "Z":
                found.append((path / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


STAGES = {
    "sample": ("sample.clips_per_class=200",),
    "tune": ("tune.trials=4", "tune.epochs=50"),
    "train": ("train.epochs=500",),
}
AT_WORK: dict[str, Callable[[Path], bool]] = {
    "sample": lambda p: any((p / "new").rglob("*.skeleton")),
    "train": lambda p: any((p / "artifacts" / "train").rglob("history.csv")),
    "tune": lambda p: any((p / "artifacts" / "runs").glob("*/*")),
}


@pytest.mark.parametrize("name", STAGES)
def test_each_stage_ends_and_says_how_to_go_on(name: str, project: Project, tmp_path: Path) -> None:
    words = [w for w in project.words if not w.startswith("paths.artifacts")]
    if name == "sample":
        words = [w for w in words if not w.startswith("paths.data")] + [
            f"paths.data={tmp_path}/new"
        ]
    artifacts = tmp_path / "artifacts"
    shutil.copytree(project.artifacts, artifacts)
    log = tmp_path / "log"

    def at_work() -> bool:
        return AT_WORK[name](tmp_path)

    words += [f"paths.artifacts={artifacts}", *STAGES[name], "ray.workers=1"]
    found = Stopped([f"pipelines.{name}", *words], at_work, log, f"sqlite:///{tmp_path}/mlflow.db")
    assert found.status in (130, -signal.SIGINT), found.text
    assert "Traceback" not in found.text, found.text
    *_, last = found.text.splitlines()
    how = f"the same command {GOES_ON.get(name, 'begins it again')}"
    assert last == f"{name}: stopped; {how}", found.text
    assert found.left == []
