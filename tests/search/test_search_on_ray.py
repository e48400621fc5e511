"""The tune stage for real: trials on Ray, killed and run again, nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
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


def trials(artifacts: Path) -> dict[str, dict]:
    """What the search has written of each trial, by key."""
    files = (artifacts / "tune" / "trials").glob("[0-9]*.json")
    return {file.stem: json.loads(file.read_text()) for file in files}


def wait_for(artifacts: Path, condition: Callable[[dict], bool], search: subprocess.Popen) -> dict:
    while True:
        found = [trial for trial in trials(artifacts).values() if condition(trial)]
        if found:
            return found[-1]
        if search.poll() is not None:
            pytest.fail(f"the search ended before that:\n{search.stdout.read()}")
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
        done = wait_for(artifacts, lambda t: t["status"] in ("completed", "stopped"), first)
        wait_for(artifacts, lambda t: t["number"] != done["number"] and t["rows"], first)
        children = psutil.Process(first.pid).children(recursive=True)
        os.kill(first.pid, signal.SIGKILL)
        for process in children:
            if process.is_running():
                process.kill()
    finally:
        end_all(first)
    before = trials(artifacts)
    runs = checkpoints(artifacts)

    second = start(artifacts, tiny_search)
    try:
        killed = None
        while second.poll() is None and killed is None:
            if any(trial["status"] == "running" for trial in trials(artifacts).values()):
                killed = _kill_a_trial(second.pid)
            time.sleep(0.05)
        output, _ = second.communicate(timeout=400)
    finally:
        end_all(second)
    assert second.returncode == 0, output
    assert killed is not None

    after = trials(artifacts)
    assert len(after) == 3
    for key, trial in before.items():
        rows = after[key]["rows"]
        assert rows[: len(trial["rows"])] == trial["rows"], "an epoch was trained twice"
        assert after[key]["values"] == trial["values"]
    assert after[done["key"]]["rows"] == before[done["key"]]["rows"], "a finished trial ran again"
    # Those that were open went on in the training runs that they had.
    journal = next((artifacts / "tune" / "searches").glob("*/journal.jsonl"))
    assert {f"tune-{journal.parent.name}-{key}" for key in before} >= runs > set()
    assert not list((artifacts / "runs").glob("tune-*")), "checkpoints are left"
    with pa.ipc.open_file(str(artifacts / "tune" / "trials.arrow")) as file:
        rows = file.read_all().to_pylist()
    assert {row["status"] for row in rows} <= {"completed", "stopped"}
    best = yaml.safe_load((artifacts / "tune" / "best.yaml").read_text())
    winner = next(row for row in rows if row["winner"])
    assert best and all(winner[name] == pytest.approx(best[name]) for name in best)
    assert winner["finalist_robust_acc"] is not None
    for name in ("trials.csv", "tune.json", "pareto.png", "importances.png", "parallel.png"):
        assert (artifacts / "tune" / name).stat().st_size > 0


def checkpoints(artifacts: Path) -> set[str]:
    """Names of the training runs that have a checkpoint."""
    return {path.parent.name for path in (artifacts / "runs").glob("tune-*/epoch_*")}


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
