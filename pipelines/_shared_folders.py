"""Whether all nodes of a cluster see the folders of a stage: asked before it begins.

A node where the shared folder is not mounted would find no clip readable there, and the index would
reject what lies on other nodes in good order; or write results that nobody finds.
"""

import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines._stage import StageError

ANSWER_SECONDS = 120.0  # a node that is busy starts a process slowly


def check_seen_by_all(read: Sequence[Path], written: Sequence[Path]) -> None:
    """StageError that names the nodes which miss one of the folders.

    read:    an entry that this process sees there must be seen by all; an empty folder counts
    written: a file that this process writes there must be seen by all
    """
    marks: dict[str, str] = {}
    own: list[Path] = []
    for folder in read:
        first = next(iter(sorted(os.listdir(folder))), "") if folder.is_dir() else ""
        marks[str(folder / first)] = str(folder)
    for folder in written:
        folder.mkdir(parents=True, exist_ok=True)
        own.append(folder / f".seen-{uuid.uuid4().hex}")
        own[-1].touch()
        marks[str(own[-1])] = str(folder)
    try:
        missing = _missing(sorted(marks))
    finally:
        for path in own:
            path.unlink()
    if missing:
        where = "; ".join(
            f"{node} misses {', '.join(marks[path] for path in paths)}"
            for node, paths in sorted(missing.items())
        )
        raise StageError(
            f"not all nodes see the same folders: {where}. Mount the shared folder there, or name "
            "one that all nodes see (WORKSPACE of `make submit`, paths.data, paths.artifacts)"
        )


def _missing(paths: list[str]) -> dict[str, list[str]]:
    """The paths that each node with CPUs does not see, by the node's address."""
    asked = {}
    look = ray.remote(_unseen)
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get("CPU"):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = look.options(num_cpus=0, scheduling_strategy=there)
            asked[task.remote(paths)] = node["NodeManagerAddress"]
    missing = {}
    for answer, address in asked.items():
        try:
            unseen = ray.get(answer, timeout=ANSWER_SECONDS)
        except (GetTimeoutError, RayError):
            continue  # lost or stuck: its tasks will run elsewhere
        if unseen:
            missing[address] = unseen
    return missing


def _unseen(paths: list[str]) -> list[str]:
    return [path for path in paths if not os.path.exists(path)]
