"""The tune stage for real: trials on Ray, killed and run again, nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def start(artifacts: Path, words: list[str]) -> subprocess.Popen[str]:
    store = f"tracking.uri=sqlite:///{artifacts.parent / 'mlflow.db'}"
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.tune", f"paths.artifacts={artifacts}", store, *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip


def events(artifacts: Path) -> list[dict]:
    files = list((artifacts / "tune" / "searches").glob("*/ledger.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def wait_for(artifacts: Path, kind: str, search: subprocess.Popen[str]) -> dict:
    while True:
        found = [e for e in events(artifacts) if e["event"] == kind]
        if found:
            return found[-1]
        if search.poll() is not None:
            pytest.fail(f"the search ended before any {kind!r}:\n{search.stdout.read()}")  # type: ignore[union-attr]
        time.sleep(0.1)


def end_all(search: subprocess.Popen[str]) -> None:
    """End the search and whatever it started, by process id."""
    try:
        mine = psutil.Process(search.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        mine = []
    search.kill()
    for process in mine:
        if process.is_running():
            process.kill()
    search.wait()


@pytest.mark.slow
def test_a_search_survives_the_death_of_its_driver_and_of_a_trial(
    tmp_path: Path, tiny_shards: str, tiny_search: list[str]
) -> None:
    artifacts = tmp_path / "artifacts"
    artifacts.mkdir()
    (artifacts / "shards").symlink_to(tiny_shards)

    first = start(artifacts, tiny_search)
    try:
        done = wait_for(artifacts, "end", first)
        children = psutil.Process(first.pid).children(recursive=True)
        os.kill(first.pid, signal.SIGKILL)
        for process in children:
            if process.is_running():
                process.kill()
    finally:
        end_all(first)
    before = [e for e in events(artifacts) if e["event"] == "epoch" and e["key"] == done["key"]]

    second = start(artifacts, tiny_search)
    try:
        killed = None
        while second.poll() is None and killed is None:
            running = [e for e in events(artifacts) if e["event"] == "start"]
            sessions = [e["at"] for e in events(artifacts) if e["event"] == "session"]
            if len(sessions) > 1 and running and running[-1]["at"] > sessions[-1]:
                killed = _kill_a_trial(second.pid)
            time.sleep(0.05)
        output, _ = second.communicate(timeout=400)
    finally:
        end_all(second)
    assert second.returncode == 0, output
    assert killed is not None

    told = events(artifacts)
    again = [e for e in told if e["event"] == "epoch" and e["key"] == done["key"]]
    assert again == before, "a finished trial was run again"
    ends = [e["key"] for e in told if e["event"] == "end"]
    assert len(ends) == len(set(ends)) == 3
    with pa.ipc.open_file(str(artifacts / "tune" / "trials.arrow")) as file:
        rows = file.read_all().to_pylist()
    assert {row["status"] for row in rows} <= {"completed", "stopped"}
    best = yaml.safe_load((artifacts / "tune" / "best.yaml").read_text())
    winner = next(row for row in rows if row["winner"])
    assert best and all(winner[name] == pytest.approx(best[name]) for name in best)
    assert winner["finalist_robust_acc"] is not None
    for name in ("trials.csv", "tune.json", "pareto.png", "importances.png", "parallel.png"):
        assert (artifacts / "tune" / name).stat().st_size > 0


def _kill_a_trial(driver: int) -> int | None:
    """SIGKILL the process of one trial; its process id, None while there is none."""
    for process in psutil.Process(driver).children(recursive=True):
        try:
            name = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if "ray::ImplicitFunc" in name and process.status() != psutil.STATUS_ZOMBIE:
            process.kill()
            return process.pid
    return None
