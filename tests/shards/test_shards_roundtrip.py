"""Shards: what goes in comes out, in this program and in others; what is damaged is refused."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components.ntu.people import choose_people
from components.ntu.skeleton import read_skeleton
from components.shards import ShardError, ShardSet
from components.shards.schema import FORMAT, VERSION
from components.shards.sealing import seal
from components.shards.storage import open_store
from components.shards.writer import write_shard

Build = Callable[..., dict[str, Any]]


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(folder.iterdir())
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_clips_come_back_whole(build: Build, tree: Path, tmp_path: Path) -> None:
    body = build(tmp_path)
    shards = ShardSet.open(tmp_path)
    assert len(shards) == 9 == body["clips"] and len(body["shards"]) == 3
    assert shards.meta.column("clip_id").to_pylist() == sorted(shards.clip_ids)
    for row in range(9):
        clip = shards.clip(row)
        people = choose_people(read_skeleton(next(tree.rglob(f"{clip.clip_id}.skeleton"))))
        np.testing.assert_array_equal(clip.skeleton, people.joints)
        np.testing.assert_array_equal(clip.present, people.present)
        assert clip.rgb.shape == (6, 16, 16, 3) and clip.rgb.dtype == np.uint8
        assert clip.rgb_index.tolist() == [1, 3, 5, 8, 10, 12] and clip.num_rgb_frames == 14
        assert f"C{clip.camera:03d}P{clip.subject:03d}" in clip.clip_id and clip.action == 7
    assert len({shards.clip(i).rgb.tobytes() for i in (0, 3, 6)}) == 3  # one a camera


def test_raw_frames_are_views_of_the_mapped_file(build: Build, tmp_path: Path) -> None:
    build(tmp_path)
    clip = ShardSet.open(tmp_path).clip(5)
    for array in (clip.rgb, clip.skeleton, clip.present, clip.rgb_index):
        assert not array.flags.owndata and not array.flags.writeable


def test_jpeg_stays_near_raw_and_is_smaller(build: Build, tmp_path: Path) -> None:
    raw = build(tmp_path / "raw", size=64)
    jpeg = build(tmp_path / "jpeg", size=64, codec="jpeg", jpeg_quality=95)
    assert jpeg["shards"][0]["bytes"] < raw["shards"][0]["bytes"]
    pair = [ShardSet.open(tmp_path / name).clip(4).rgb.astype(int) for name in ("raw", "jpeg")]
    assert pair[0].shape == pair[1].shape and np.abs(pair[0] - pair[1]).mean() < 6


def test_plain_arrow_reads_a_shard_without_this_program(build: Build, tmp_path: Path) -> None:
    body = build(tmp_path)
    with pa.ipc.open_file(pa.memory_map(str(tmp_path / "shard-000001.arrow"))) as reader:
        table = reader.read_all()
    row = table.slice(2, 1).to_pylist()[0]
    frame = np.frombuffer(row["rgb"][3], np.uint8).reshape(16, 16, 3)
    clip = ShardSet.open(tmp_path).clip(6)
    assert row["clip_id"] == clip.clip_id and table.num_rows == body["shards"][1]["rows"]
    np.testing.assert_array_equal(frame, clip.rgb[3])
    joints = np.array(row["skeleton"], np.float32).reshape(-1, 2, 25, 3)
    np.testing.assert_array_equal(joints, clip.skeleton)
    settings = json.loads(table.schema.metadata[FORMAT.encode()])
    assert settings["version"] == VERSION and settings["size"] == 16


def test_hugging_face_datasets_reads_the_shards(build: Build, tmp_path: Path) -> None:
    import datasets  # takes seconds

    build(tmp_path / "shards")
    files = sorted(str(path) for path in (tmp_path / "shards").glob("shard-*.arrow"))
    table = datasets.load_dataset(
        "arrow", data_files=files, split="train", cache_dir=str(tmp_path / "cache")
    )
    clip = ShardSet.open(tmp_path / "shards").clip(7)
    row = table[7]
    assert len(table) == 9 and row["clip_id"] == clip.clip_id
    frame = np.frombuffer(row["rgb"][0], np.uint8).reshape(16, 16, 3)
    np.testing.assert_array_equal(frame, clip.rgb[0])


def test_bytes_are_the_same_every_time_and_in_any_order_of_work(
    build: Build, plans: Callable[..., list], tmp_path: Path
) -> None:
    build(tmp_path / "a")
    backwards = [write_shard(plan) for plan in reversed(plans(tmp_path / "b"))]
    first = open_store(tmp_path / "b")
    seal(first, backwards[::-1], json.loads((tmp_path / "a" / "shards.json").read_text()) | {})
    a, b = hashes(tmp_path / "a"), hashes(tmp_path / "b")
    assert {k: v for k, v in a.items() if k != "shards.json"} == {
        k: v for k, v in b.items() if k != "shards.json"
    }
    one, other = (ShardSet.open(tmp_path / name) for name in "ab")
    assert one.fingerprint == other.fingerprint


def test_finished_shards_are_kept_and_damaged_ones_written_again(
    build: Build, plans: Callable[..., list], tmp_path: Path
) -> None:
    build(tmp_path)
    before = hashes(tmp_path)
    assert [write_shard(plan).fresh for plan in plans(tmp_path)] == [False] * 3
    path = tmp_path / "shard-000001.arrow"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert [write_shard(plan).fresh for plan in plans(tmp_path)] == [False, True, False]
    assert hashes(tmp_path) == before


@pytest.mark.parametrize("changes", [{"size": 24}, {"frames": 5}, {"margin": 0.3}])
def test_other_settings_write_all_shards_again(
    build: Build, plans: Callable[..., list], tmp_path: Path, changes: dict[str, Any]
) -> None:
    build(tmp_path)
    assert all(write_shard(plan).fresh for plan in plans(tmp_path, **changes))


def test_a_changed_clip_writes_its_shard_again(
    build: Build, plans: Callable[..., list], tmp_path: Path, tree: Path
) -> None:
    copy = tmp_path / "tree"
    shutil.copytree(tree, copy)
    out = tmp_path / "shards"
    work = [replace_root(plan, copy) for plan in plans(out)]
    for plan in work:
        write_shard(plan)
    found = work[2].clips[0][0]
    text = (copy / found.skeleton).read_text().replace("3.0", "3.1")
    (copy / found.skeleton).unlink()  # a hard link: the others must not change with it
    (copy / found.skeleton).write_text(text)
    assert [write_shard(plan).fresh for plan in work] == [False, False, True]


def replace_root(plan: Any, root: Path) -> Any:
    from dataclasses import replace

    return replace(plan, root=str(root))


def test_fewer_shards_leave_nothing_behind(build: Build, tmp_path: Path) -> None:
    build(tmp_path, per_shard=2)
    build(tmp_path, per_shard=5)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert [n for n in names if n.endswith(".arrow") and n.startswith("shard")] == [
        "shard-000000.arrow",
        "shard-000001.arrow",
    ]
    assert len(ShardSet.open(tmp_path)) == 9


def test_an_unreadable_clip_is_left_out_and_named(
    plans: Callable[..., list], tmp_path: Path, tree: Path
) -> None:
    copy = tmp_path / "tree"
    shutil.copytree(tree, copy)
    work = [replace_root(plan, copy) for plan in plans(tmp_path / "shards")]
    bad = work[0].clips[1][0]
    (copy / bad.video).unlink()
    (copy / bad.video).write_bytes(b"no video")
    record = write_shard(work[0]).record
    assert record["rows"] == 3
    assert [(r["clip_id"], r["reason"]) for r in record["rejected"]] == [
        (str(bad.clip), "video-unreadable")
    ]


def damage(folder: Path, kind: str) -> str:
    shard, index = folder / "shard-000001.arrow", folder / "shards.json"
    if kind == "flip":
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
    elif kind == "cut":
        shard.write_bytes(shard.read_bytes()[:-100])
    elif kind == "missing":
        shard.unlink()
    elif kind == "unsealed":
        index.unlink()
    elif kind == "version":
        index.write_text(index.read_text().replace('"version": 1', '"version": 99'))
    elif kind == "no index":
        index.write_text("{broken")
    elif kind == "clips":
        (folder / "clips.arrow").write_bytes(b"nonsense")
    elif kind == "foreign":
        schema = pa.schema([("a", pa.int32())])
        with pa.OSFile(str(shard), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            writer.write_table(pa.table({"a": pa.array([1], pa.int32())}))
        return reseal(folder, shard)
    elif kind == "other set":
        return reseal(folder, shard)
    return "shards.json|shard-000001|clips.arrow|no finished shards"


def reseal(folder: Path, shard: Path) -> str:
    body = json.loads((folder / "shards.json").read_text())
    data = shard.read_bytes()
    body["shards"][1] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "shards.json").write_text(json.dumps(body))
    return "shard-000001"


@pytest.mark.parametrize(
    "kind",
    ["flip", "cut", "missing", "unsealed", "version", "no index", "clips", "foreign", "other set"],
)
def test_damaged_or_foreign_shards_are_named_and_refused(
    build: Build, tmp_path: Path, kind: str
) -> None:
    build(tmp_path / "here")
    if kind == "other set":
        build(tmp_path / "other", frames=4)
        shutil.copy(tmp_path / "other" / "shard-000001.arrow", tmp_path / "here")
    name = damage(tmp_path / "here", kind)
    with pytest.raises(ShardError, match=name):
        shards = ShardSet.open(tmp_path / "here")
        shards.clip(5)


def test_a_folder_without_shards_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="pipelines.shard"):
        ShardSet.open(tmp_path / "nothing")


def test_a_shard_name_cannot_leave_its_folder(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for name in ("../x", "/etc/passwd", "a/b", "..", "", "a\\b"):
        with pytest.raises(ValueError, match="no file name"):
            store.path(name)
