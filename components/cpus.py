"""How many CPUs this process may use: a container or a scheduler may grant fewer than there are."""

import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def usable_cpus(cgroups: Path = CGROUPS, own: Path = OWN) -> int:
    """The least of: CPUs of the machine, of this process's affinity, of its cgroups' quotas.

    A part of a CPU counts as one when it is all there is, and is left out otherwise.
    """
    if hasattr(os, "sched_getaffinity"):
        most = float(len(os.sched_getaffinity(0)))
    else:
        most = float(os.cpu_count() or 1)
    return max(1, int(min([most, *_quotas(cgroups, own)])))


def _quotas(cgroups: Path, own: Path) -> list[float]:
    """CPUs by the quota of each group above this process, versions 1 and 2."""
    try:
        lines = own.read_text().splitlines()
    except OSError:  # not Linux
        return []
    found = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # In a container the mounted root is the process's own group, whatever its name outside.
        top = cgroups / "cpu" if controllers else cgroups
        here = top / group.lstrip("/")
        for folder in (here, *here.parents):
            quota = _quota_1(folder) if controllers else _quota_2(folder)
            if quota:
                found.append(quota)
            if folder == top:
                break
    return found


def _quota_2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _quota_1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 else None
