"""A writer killed at any moment: the next run ends with the bytes of an undisturbed one."""

import hashlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from components.shards import ShardSet
from components.shards.sealing import seal, unseal
from components.shards.storage import open_store
from components.shards.writer import Plan, write_shard
from pipelines import index
from pipelines._stage import ROOT, run_stage


def write_all(plans: list[Plan], where: str) -> None:
    """What the stage does, in one process."""
    store = open_store(where, create=True)
    unseal(store)
    seal(store, [write_shard(plan) for plan in plans], dict(plans[0].settings))


def checksums(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


@pytest.mark.slow
def test_twenty_kills_at_random_moments(plans: Callable[..., list], tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "components.shards.writer"])
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"

    def start(folder: Path) -> multiprocessing.Process:
        work = plans(folder, per_shard=1)
        process = context.Process(target=_write_all_by_name, args=(work, str(folder)))
        process.start()
        return process

    start(undisturbed).join()  # the server of processes is warm from here on
    began = time.monotonic()
    start(tmp_path / "timed").join()
    whole = time.monotonic() - began
    wanted = checksums(undisturbed)
    assert len(wanted) == 20  # nine shards, nine records, the index and its rows
    rng = random.Random(0)
    interrupted = turns = 0
    # On a busy machine the undisturbed run says little of how long the next one takes: go on until
    # enough of the moments fell into the work.
    while turns < 20 or (interrupted < 10 and turns < 100):
        turn = turns
        turns += 1
        folder = killed / str(turn // 4)  # four kills in a row hit the same folder
        began = time.monotonic()
        process = start(folder)
        process.join(rng.uniform(0.0, whole))
        if process.is_alive():
            interrupted += 1
            process.kill()
        else:
            whole = min(whole, time.monotonic() - began)
        process.join()
        if turn % 4 == 3:
            process = start(folder)
            process.join()
            assert process.exitcode == 0
            assert checksums(folder) == wanted
            assert len(ShardSet.open(folder)) == 9
    assert interrupted >= 10


def _write_all_by_name(plans: list[Plan], where: str) -> None:
    write_all(plans, where)


@pytest.mark.slow
def test_the_stage_itself_is_killed_and_goes_on(
    plans: Callable[..., list], tree: Path, tmp_path: Path
) -> None:
    words = [f"paths.data={tree}", f"paths.artifacts={tmp_path}", "shard.clips_per_shard=1"]
    words += ["shard.size=16", "shard.frames=6", "ray.tasks=1"]
    words += ["data.protocol=custom", "data.custom.subjects=[1,2]", "index.check=names"]

    def stage(name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"pipelines.{name}", *words]
        return subprocess.Popen(command, cwd=ROOT, start_new_session=True)

    write_all(plans(tmp_path / "undisturbed", per_shard=1), str(tmp_path / "undisturbed"))
    assert run_stage("index", index.main, words) == 0
    process, shards = stage("shard"), tmp_path / "shards"
    while process.poll() is None and len(list(shards.glob("shard-*.json"))) < 3:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (shards / "shards.json").exists()
    kept = {p.name: p.stat().st_mtime_ns for p in shards.glob("shard-*.json")}
    assert len(kept) >= 3
    assert stage("shard").wait() == 0
    assert checksums(shards) == checksums(tmp_path / "undisturbed")
    assert all((shards / name).stat().st_mtime_ns == when for name, when in kept.items())
