"""The index and shard stages as a user runs them: counts, reasons, clear errors."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import ray

from benchmarks._ntu_files import write_skeleton, write_tree, write_video
from components.address import parse_address, probe
from components.config.train import RaySection
from components.ntu.ids import ClipId
from components.ntu.roster import all_clips
from components.shards import ShardSet
from components.shards.writer import Plan, Written, plan_shards, read_alone, write_shard
from components.sources import get_source
from pipelines import index, shard
from pipelines._cluster import cluster
from pipelines._stage import StageError, run_stage
from pipelines._tasks import parallel, to_nodes

SPLIT = ["data.protocol=custom", "data.custom.subjects=[1,2]"]


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """One Ray for all tests of this file; the stages join it."""
    with cluster(RaySection()):
        yield


def run(module: Any, data: Path, artifacts: Path, *more: str) -> int:
    words = [f"paths.data={data}", f"paths.artifacts={artifacts}", *SPLIT, *more]
    return run_stage(module.__name__.rpartition(".")[2], module.main, words)


def make_dirty_tree(root: Path) -> None:
    clips = [ClipId(1, 1, subject, 1, action) for subject in (1, 2, 3) for action in (1, 2)]
    write_tree(root, clips, frames=10, width=96, height=54, distinct=2)
    rgb, skeletons = root / "nturgb+d_rgb", root / "nturgb+d_skeletons"
    write_skeleton(skeletons / "S001C001P001R001A003.skeleton", 10)  # no video
    write_video(rgb / "S001C001P001R001A004_rgb.avi", 10, 96, 54)  # no skeleton
    for name, skeleton, video in (
        ("S001C001P001R001A005", b"10\r\n0\r\n", None),
        ("S001C001P001R001A006", None, b"no video"),
        ("S001C002P005R002A008", None, None),  # on the official list
    ):
        write_skeleton(skeletons / f"{name}.skeleton", 10)
        write_video(rgb / f"{name}_rgb.avi", 10, 96, 54)
        if skeleton is not None:
            (skeletons / f"{name}.skeleton").write_bytes(skeleton)
        if video is not None:
            (rgb / f"{name}_rgb.avi").write_bytes(video)
    (skeletons / "readme.skeleton").write_text("?")


REJECTED = {
    "missing-skeleton": 1,
    "no-skeleton": 1,
    "no-video": 1,
    "skeleton-truncated": 1,
    "video-unreadable": 1,
}


def test_a_ray_head_is_known_by_its_greeting(ray_here: None) -> None:
    assert probe(parse_address(ray.get_runtime_context().gcs_address, "cluster")) == ""


def test_every_clip_is_accounted_for(tmp_path: Path, ray_here: None) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    make_dirty_tree(data)
    assert run(index, data, out) == 0
    summary = json.loads((out / "index.json").read_text())
    assert (summary["found"], summary["accepted"]) == (11, 6)
    assert summary["rejected"] == REJECTED
    assert summary["unrecognised_files"] == ["nturgb+d_skeletons/readme.skeleton"]
    assert (summary["train"], summary["val"], summary["test"]) == (2, 2, 2)
    assert summary["notes"] == ["validation: training subjects 2"]
    rows = pq.read_table(out / "manifest.parquet").to_pylist()
    assert [row["accepted"] for row in rows].count(True) == 6 and len(rows) == 11
    assert all(row["detail"] for row in rows if not row["accepted"])
    good = next(row for row in rows if row["accepted"])
    assert (good["rgb_frames"], good["skeleton_frames"], good["width"]) == (10, 10, 96)

    assert run(shard, data, out, "shard.clips_per_shard=4", "shard.size=16") == 0
    shards = ShardSet.open(out / "shards")
    assert shards.clip_ids == [row["clip_id"] for row in rows if row["accepted"]]

    uri = f"file://{tmp_path}/elsewhere"
    assert run(shard, data, out, "shard.size=16", f"shard.uri={uri}") == 0
    assert ShardSet.open(uri).clip_ids == shards.clip_ids
    assert json.loads((out / "shards" / "shards.json").read_text())["uri"] == uri

    assert run(index, data, out, "data.keep_missing=true") == 0
    kept = json.loads((out / "index.json").read_text())
    assert kept["accepted"] == 7 and "missing-skeleton" not in kept["rejected"]


def test_shards_are_the_same_for_any_number_of_workers(tmp_path: Path, ray_here: None) -> None:
    data = tmp_path / "data"
    make_dirty_tree(data)
    prints = []
    for workers in (1, 3):
        out = tmp_path / str(workers)
        assert run(index, data, out, f"ray.tasks={workers}") == 0
        sizes = ["shard.clips_per_shard=2", "shard.size=16"]
        assert run(shard, data, out, f"ray.tasks={workers}", *sizes) == 0
        prints.append((out / "shards" / "shards.json").read_bytes())
        prints.append((out / "manifest.parquet").read_bytes())
    assert prints[:2] == prints[2:]


@pytest.mark.slow
def test_names_alone_index_all_of_ntu_120(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for name in all_clips(120):
        # Empty files: this check reads names alone.
        (data / f"{name}_rgb.avi").touch()
        (data / f"{name}.skeleton").touch()
    words = [f"paths.data={data}", f"paths.artifacts={out}", "index.check=names"]
    assert run_stage("index", index.main, [*words, "data.protocol=xsub120"]) == 0
    summary = json.loads((out / "index.json").read_text())
    assert (summary["found"], summary["accepted"]) == (114480, 113945)
    assert summary["rejected"] == {"missing-skeleton": 535}
    assert (summary["train"] + summary["val"], summary["test"]) == (63026, 50919)
    assert summary["official_clips"] == {"all": 114480, "found": 114480}
    before = summary["before_rejection"]
    assert (before["train"] + before["val"], before["test"]) == (63360, 51120)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "holds no clip"),
        (lambda path: (path.mkdir(), (path / "a.skeleton").write_text("1")), "another form|other"),
    ],
)
def test_missing_or_empty_data_is_a_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Any, message: str
) -> None:
    make(tmp_path / "data")
    assert run(index, tmp_path / "data", tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert str(tmp_path / "data") in told and "Traceback" not in told


def test_a_split_without_clips_is_an_error_and_still_leaves_the_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tree(tmp_path / "data", [ClipId(1, 1, 1, 1, 1)], frames=4, width=96, height=54)
    assert run(index, tmp_path / "data", tmp_path / "out", "index.check=names") == 2
    assert "no clip to test on" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "index.json").read_text())["accepted"] == 1


def test_shard_without_a_manifest_names_the_stage_to_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(shard, tmp_path, tmp_path / "out") == 2
    assert "pipelines.index" in capsys.readouterr().err


@pytest.mark.slow
def test_a_clip_that_kills_its_worker_is_left_out_of_its_shard(
    tmp_path: Path, ray_here: None
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    ids = [ClipId(1, 1, subject, 1, 1) for subject in (1, 2, 3, 4)]
    write_tree(data, ids, frames=10, width=96, height=54, distinct=1)
    deadly = str(ids[1])

    def die(plan: Plan) -> None:
        if any(str(found.clip) == deadly for found, _, _ in plan.clips) and not plan.deadly:
            os._exit(1)

    def write(plan: Plan) -> Written:
        die(plan)
        return write_shard(plan)

    def read(plan: Plan) -> frozenset[str]:
        die(plan)
        return read_alone(plan)

    plans = plan_shards(
        [(found, 0, "") for found in get_source("ntu").find(data).clips],
        clips_per_shard=2,
        root=str(data),
        where=str(out),
        settings={"source": "ntu", "unit": "metres", "codec": "raw", "jpeg_quality": 0}
        | {"frames": 4, "size": 16, "margin": 0.1},
    )
    with cluster(RaySection()) as c:
        first, second = shard.write_all(c, plans, 0, write, read)
    assert (first.record["rows"], second.record["rows"]) == (1, 2)
    assert [(r["clip_id"], r["reason"]) for r in first.record["rejected"]] == [
        (deadly, "kills-reader")
    ]


def test_parallel_keeps_order_and_raises_what_the_task_raised(ray_here: None) -> None:
    with cluster(RaySection()) as c:
        assert list(parallel(c, lambda x: x * x, range(7), workers=2)) == [x * x for x in range(7)]
        with pytest.raises(ZeroDivisionError):
            list(parallel(c, lambda x: 1 // x, [1, 0]))


def test_results_are_taken_as_they_arrive_and_values_travel(ray_here: None) -> None:
    came: list[int] = []
    with cluster(RaySection()) as c:
        ten = to_nodes({"value": 10})
        items = range(5)
        kept = list(parallel(c, lambda x: x * ten()["value"], items, arrived=came.append))
    assert sorted(came) == [0, 10, 20, 30, 40] and kept == [None] * 5


def test_a_full_disk_is_named_with_its_node(ray_here: None) -> None:
    def full(number: int) -> None:
        raise OSError(number, os.strerror(number))

    with cluster(RaySection()) as c:
        with pytest.raises(StageError, match=r"no space left on node [\d.]+ .*same command again"):
            list(parallel(c, full, [errno.ENOSPC]))
        with pytest.raises(PermissionError):
            list(parallel(c, full, [errno.EACCES]))


@pytest.mark.slow
def test_an_item_that_kills_its_worker_is_handed_back(ray_here: None) -> None:
    def deadly(item: int) -> int:
        import os

        if item == 2:
            os._exit(1)
        return item

    with cluster(RaySection()) as c:
        got = list(parallel(c, deadly, [1, 2, 3], on_lost=lambda item: -item))
        assert got == [1, -2, 3]
        with pytest.raises(StageError, match="died again and again"):
            list(parallel(c, deadly, [2]))
