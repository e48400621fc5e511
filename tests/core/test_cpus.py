"""CPUs of a container: the least of machine, affinity and quotas."""

import os

import pytest

from components.cpus import usable_cpus


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Eight CPUs, and a function that writes the group of this process and files of groups."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    def groups(own: str, **files: str) -> int:
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            path = tmp_path / "groups" / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return usable_cpus(tmp_path / "groups", tmp_path / "own")

    return groups


def test_no_limit(machine):
    assert machine("0::/\n", cpu_dot_max="max 100000") == 8
    assert machine("") == 8


@pytest.mark.parametrize(
    ("quota", "cpus"), [("100000 100000", 1), ("250000 100000", 2), ("50000 100000", 1)]
)
def test_a_quota_of_version_2(machine, quota, cpus):
    assert machine("0::/\n", cpu_dot_max=quota) == cpus


def test_a_quota_of_a_group_above(machine):
    assert machine("0::/job/task\n", job__cpu_dot_max="300000 100000") == 3
    # In a container the name is the host's, and the mounted root is the process's own group.
    assert machine("0::/docker/abc\n", cpu_dot_max="200000 100000") == 2


def test_a_quota_of_version_1(machine):
    files = {"cpu__cpu_dot_cfs_quota_us": "100000", "cpu__cpu_dot_cfs_period_us": "100000"}
    assert machine("4:cpu,cpuacct:/\n3:memory:/x\n0::/\n", **files) == 1
    files["cpu__cpu_dot_cfs_quota_us"] = "-1"
    assert machine("4:cpu,cpuacct:/\n", **files) == 8


def test_affinity(machine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert machine("") == 2
