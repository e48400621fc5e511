"""Whether all nodes of a cluster see the folders of a stage: asked before it begins.

A node where the shared folder is not mounted would find no clip readable there, and the index would
reject what lies on other nodes in good order; or write results that nobody finds.
"""

import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from pipelines._stage import StageError

Look = Callable[[list[str]], list[str]]


def folders(*places: str) -> list[Path]:
    """Those of the places that are folders; URIs are the same everywhere."""
    return [Path(place) for place in places if "://" not in place]


def check_seen_by_all(
    read: Sequence[Path],
    written: Sequence[Path],
    on_each_node: Callable[[Look, list[str]], dict[str, list[str]]],
) -> None:
    """StageError that names the nodes which miss one of the folders.

    read:    an entry that this process sees there must be seen by all; an empty folder counts
    written: a file that this process writes there must be seen by all
    on_each_node: runs a function of these paths on all nodes; results by the node's address
    """
    marks: dict[str, str] = {}
    own: list[Path] = []
    for folder in read:
        if folder.is_dir():  # else the stage says so itself
            first = min(os.listdir(folder), default="")
            marks[str(folder / first)] = str(folder)
    for folder in written:
        folder.mkdir(parents=True, exist_ok=True)
        own.append(folder / f".seen-{uuid.uuid4().hex}")
        own[-1].touch()
        marks[str(own[-1])] = str(folder)
    try:
        missing = on_each_node(_unseen, sorted(marks))
    finally:
        for path in own:
            path.unlink()
    if any(missing.values()):
        where = "; ".join(
            f"{node} misses {', '.join(marks[path] for path in paths)}"
            for node, paths in sorted(missing.items())
            if paths
        )
        raise StageError(
            f"not all nodes see the same folders: {where}. Mount the shared folder there, or name "
            "one that all nodes see (WORKSPACE of `make submit`, paths.data, paths.artifacts)"
        )


def _unseen(paths: list[str]) -> list[str]:
    return [path for path in paths if not os.path.exists(path)]
