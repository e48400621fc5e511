"""A tree of a few tiny NTU clips, and shards made of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks._ntu_files import write_tree
from components.ntu.crop import MARGIN
from components.ntu.ids import ClipId
from components.shards.sealing import seal, unseal
from components.shards.storage import open_store
from components.shards.writer import Plan, plan_shards, write_shard
from components.sources import get_source

SETTINGS: dict[str, Any] = {
    "source": "ntu",
    "unit": "metres",
    "codec": "raw",
    "jpeg_quality": 0,
    "frames": 6,
    "size": 16,
    "margin": MARGIN,
}
CLIPS = [ClipId(1, camera, subject, 1, 7) for subject in (1, 2, 3) for camera in (1, 2, 3)]


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ntu")
    write_tree(root, CLIPS, frames=14, width=96, height=54, distinct=3)
    return root


@pytest.fixture
def plans(tree: Path) -> Callable[..., list[Plan]]:
    """Plans for all clips into a folder or URI, with settings to change."""

    def make(where: str | Path, per_shard: int = 4, **changes: Any) -> list[Plan]:
        clips = [(found, 0, "") for found in get_source("ntu").find(tree).clips]
        return plan_shards(
            clips,
            clips_per_shard=per_shard,
            root=str(tree),
            where=str(where),
            settings={**SETTINGS, **changes},
        )

    return make


@pytest.fixture
def build(plans: Callable[..., list[Plan]]) -> Callable[..., dict[str, Any]]:
    """Write and seal shards; the index."""

    def make(where: str | Path, per_shard: int = 4, **changes: Any) -> dict[str, Any]:
        store = open_store(where, create=True)
        unseal(store)
        written = [write_shard(plan) for plan in plans(where, per_shard, **changes)]
        return seal(store, written, {**SETTINGS, **changes})

    return make
