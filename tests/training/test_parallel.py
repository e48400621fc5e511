"""Two workers on one model: same weights on both, shared batch statistics, unused parameters."""

import os
import platform
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from components.checkpoint import save_checkpoint
from components.training.averaging import average_buffers, sum_over_workers, world_size
from components.training.loop import WorkerContext, train_epochs
from components.training.memory import ONE_ARENA, keep_freed_memory
from components.training.parallel import has_unused, wrap
from pipelines._stage import ROOT


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("method", ["pgd_at", "free"])
def test_two_workers_end_with_one_model(
    method, fresh, section, data, threat, tmp_path, model_config
):
    train = section(method=method, accumulate=2, ema=0.9, attack={"steps": 2, "modalities": "mix"})
    port = free_port()

    def work(rank: int) -> None:
        torch.set_num_threads(1)
        dist.init_process_group(
            "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
        )
        state = fresh(train)
        data.rank, data.world = rank, 2
        rows = list(train_epochs(state, data, train, threat, seed=0, worker=WorkerContext(rank)))
        save_checkpoint(tmp_path / f"model{rank}", state.model, model_config)
        save_checkpoint(tmp_path / f"average{rank}", state.deployed, model_config)
        summary = [[row["loss"], row["val_robust_acc_worst"], row["val_clips"]] for row in rows]
        (tmp_path / f"rows{rank}").write_text(str(summary))
        dist.destroy_process_group()

    mp.start_processes(work, nprocs=2, start_method="fork")

    def read(name: str) -> list[bytes]:
        return [Path(tmp_path / f"{name}{rank}").read_bytes() for rank in (0, 1)]

    for kind in ("model", "average"):
        first, second = ((tmp_path / f"{kind}{r}" / "model.safetensors") for r in (0, 1))
        assert first.read_bytes() == second.read_bytes()
    first, second = read("rows")
    assert first == second and b", 12]" in first


def test_alone_there_is_nothing_to_share(fresh, section):
    model = fresh(section()).model
    before = [b.clone() for b in model.buffers()]
    average_buffers(model)
    assert world_size() == 1
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
    assert sum_over_workers(torch.ones(2)).tolist() == [1.0, 1.0]


def test_unused_parameters_are_found_and_nothing_moves(fresh, section, clips):
    model = fresh(section()).model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert not has_unused(model, clips, section())
    model.idle = nn.Linear(2, 2)
    assert has_unused(model, clips, section())
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items() if k in before)


def test_freed_memory_stays_where_glibc_can_be_told():
    assert keep_freed_memory() is (platform.libc_ver()[0] == "glibc")


IN_A_THREAD = """
import resource, threading, torch
from components.training.memory import keep_freed_memory

def step():
    [torch.zeros(1 << 20) for _ in range(40)]  # 160 MiB together

def train():
    keep_freed_memory()
    for _ in range(3):
        step()
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(10):
        step()
    print(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)

torch.set_num_threads(1)
thread = threading.Thread(target=train)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_with_one_arena_a_thread_keeps_its_freed_memory_too():
    """As in Ray Train, which calls the training function in a thread."""
    command = [sys.executable, "-c", IN_A_THREAD]
    told = subprocess.run(
        command, env=os.environ | ONE_ARENA, cwd=ROOT, capture_output=True, check=True
    )
    assert int(told.stdout) < 1000  # pages; 36,868 without


def test_batch_statistics_stay_each_workers_own_within_an_epoch(fresh, section, clips, tmp_path):
    """Nothing of them travels in a forward pass; `average_buffers` joins them at its end."""
    port = free_port()

    def work(rank: int) -> None:
        torch.set_num_threads(1)
        dist.init_process_group(
            "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
        )
        alone, shared = (fresh(section()).model.train() for _ in range(2))
        wrapped = wrap(shared, torch.device("cpu"), unused=True)
        mine = clips.select(torch.arange(4 * rank, 4 * rank + 4))
        for _ in range(3):
            alone(*mine[:3])
            wrapped(*mine[:3])
        pairs = zip(alone.buffers(), shared.buffers(), strict=True)
        (tmp_path / f"same{rank}").write_text(str([torch.equal(a, b) for a, b in pairs]))
        dist.destroy_process_group()

    mp.start_processes(work, nprocs=2, start_method="fork")
    for rank in (0, 1):
        same = (tmp_path / f"same{rank}").read_text()
        assert "True" in same and "False" not in same
