"""Shards of a few tiny clips."""

import pytest

from benchmarks._ntu_files import write_tree
from components.ntu.ids import ClipId
from components.shards import ShardSet
from components.shards.sealing import seal
from components.shards.storage import open_store
from components.shards.writer import plan_shards, write_shard
from components.sources import get_source

SETTINGS = {
    "source": "ntu",
    "unit": "metres",
    "codec": "raw",
    "jpeg_quality": 0,
    "frames": 8,
    "size": 24,
    "margin": 0.1,
}


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    root = tmp_path_factory.mktemp("ntu")
    ids = [ClipId(1, 1, subject, 1, action) for subject in range(1, 6) for action in (3, 7, 60, 61)]
    write_tree(root, ids, frames=20, width=96, height=54, distinct=5)
    where = tmp_path_factory.mktemp("shards")
    plans = plan_shards(
        [(found, 0, "") for found in get_source("ntu").find(root).clips],
        clips_per_shard=8,
        root=str(root),
        where=str(where),
        settings=SETTINGS,
    )
    seal(open_store(where), [write_shard(plan) for plan in plans], SETTINGS)
    return ShardSet.open(where)
