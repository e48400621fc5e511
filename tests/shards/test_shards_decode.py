"""`shard.decode`: exact shards keep their bytes, fast ones say what they are."""

from pathlib import Path

import numpy as np

from benchmarks._ntu_files import write_tree
from components.ntu.ids import ClipId
from components.shards import ShardSet
from components.shards.sealing import seal
from components.shards.storage import open_store
from components.shards.writer import plan_shards, write_shard
from components.sources import get_source
from tests.shards.conftest import SETTINGS


def shards(tree: Path, where: Path, **more: str) -> ShardSet:
    settings = {**SETTINGS, **more}
    clips = [(found, 0, "") for found in get_source("ntu").find(tree).clips]
    plans = plan_shards(
        clips, clips_per_shard=4, root=str(tree), where=str(where), settings=settings
    )
    seal(open_store(where, create=True), [write_shard(plan) for plan in plans], settings)
    return ShardSet.open(where)


def test_fast_shards_are_others_and_say_so(tmp_path: Path) -> None:
    tree = tmp_path / "ntu"
    write_tree(tree, [ClipId(1, 1, p, 1, 7) for p in (1, 2)], frames=14, width=320, height=240)
    exact, fast = shards(tree, tmp_path / "a"), shards(tree, tmp_path / "b", decode="fast")
    assert exact.fingerprint != fast.fingerprint
    assert "decode" not in exact.index and fast.index["decode"] == "fast"
    for i in range(2):
        one, other = exact.clip(i), fast.clip(i)
        assert (one.rgb_index == other.rgb_index).all() and one.rgb.shape == other.rgb.shape
        difference = one.rgb.astype(float) - other.rgb
        assert 0 < np.mean(difference**2) < 255**2 / 10**3.5
        assert "reduced-decoding" in fast.meta.column("flags")[i].as_py()
        assert "reduced-decoding" not in exact.meta.column("flags")[i].as_py()


def test_clips_too_small_for_it_keep_their_pixels(tree: Path, tmp_path: Path) -> None:
    exact, fast = shards(tree, tmp_path / "a"), shards(tree, tmp_path / "b", decode="fast")
    assert all((exact.clip(i).rgb == fast.clip(i).rgb).all() for i in range(len(exact)))
    assert not any("reduced-decoding" in flags for flags in fast.meta.column("flags").to_pylist())
