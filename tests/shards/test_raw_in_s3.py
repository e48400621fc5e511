"""Raw files in an object store (a real S3 server): manifest and shards are those of a folder."""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pyarrow import fs

from components.config.train import RaySection
from components.errors import UserError
from components.shards import raw
from components.shards.writer import write_shard
from components.sources import get_source
from components.sources.ingest import look
from pipelines import index, shard
from pipelines._cluster import cluster
from pipelines._stage import run_stage
from pipelines.report import is_synthetic

NTU = get_source("ntu")


@pytest.fixture
def stored(tree: Path, tmp_path: Path, bucket: str) -> tuple[Path, str]:
    """A folder with a clip without video and a stray file, and the URI of its copy in S3."""
    folder = tmp_path / "raw"
    shutil.copytree(tree, folder)
    next(folder.rglob("*.avi")).unlink()
    (folder / "S001C001P001R001A009_rgb.avi.part").write_bytes(b"half")
    uri = bucket.format("raw")
    filesystem, root = fs.FileSystem.from_uri(uri)
    fs.copy_files(str(folder), root, destination_filesystem=filesystem)
    return folder, uri


def test_the_stages_find_and_read_the_same(stored: tuple[Path, str], tmp_path: Path) -> None:
    folder, uri = stored
    found = []
    with cluster(RaySection()):
        for name, where in (("local", f"paths.data={folder}"), ("s3", f"paths.data_uri={uri}")):
            out = tmp_path / name
            words = [where, f"paths.artifacts={out}", "data.protocol=custom", "shard.frames=6"]
            words += ["data.custom.subjects=[1,2]", "shard.size=16", "shard.clips_per_shard=4"]
            assert run_stage("index", index.main, words) == 0
            assert run_stage("shard", shard.main, words) == 0
            summary = json.loads((out / "index.json").read_text())
            assert (summary["accepted"], summary["rejected"]) == (8, {"no-video": 1})
            assert summary["unrecognised_files"] == ["S001C001P001R001A009_rgb.avi.part"]
            files = ("manifest.parquet", "shards/shards.json")
            found.append([(out / file).read_bytes() for file in files])
    assert found[0] == found[1]


def test_a_file_that_is_gone_is_the_clips_fault(stored: tuple[Path, str]) -> None:
    _, uri = stored
    clips = [found for found in raw.list_clips(NTU, uri).clips if found.video]
    filesystem, root = fs.FileSystem.from_uri(uri)
    filesystem.delete_file(f"{root}/{clips[0].skeleton}")
    assert [seen.reason for seen in raw.look_at_all(NTU, uri, clips[:2])] == ["file-unreadable", ""]


def test_a_full_disk_and_a_lost_store_are_not(
    stored: tuple[Path, str], plans: Callable[..., list], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Neither may cost a clip: the index would reject what lies there in good order."""
    _, uri = stored
    clips = raw.list_clips(NTU, uri).clips[-2:]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(raw, "_fetch", full)
    with pytest.raises(OSError, match="No space left"):
        raw.look_at_all(NTU, uri, clips)
    (plan, *_) = plans(tmp_path / "out")
    with pytest.raises(OSError, match="No space left"):
        write_shard(plan.__class__(**{**vars(plan), "root": uri}))


def test_names_alone_go_by_size_and_time_of_change(stored: tuple[Path, str]) -> None:
    folder, uri = stored
    found = next(found for found in raw.list_clips(NTU, uri).clips if found.video)
    before = raw.states_of(NTU, uri, found)
    assert [size for size, _ in before] == [
        (folder / name).stat().st_size for name in (found.video, found.skeleton)
    ]
    with raw.near(uri, found) as root:
        assert look(NTU, root, found).digest == look(NTU, folder, found).digest
        assert sorted(p.name for p in root.rglob("*") if p.is_file()) == sorted(
            Path(name).name for name in (found.video, found.skeleton)
        )
    assert not root.exists()


def test_what_is_not_there_and_what_is_synthetic(bucket: str) -> None:
    uri = bucket.format("empty")
    with pytest.raises(UserError, match="paths.data_uri=s3://.*holds no file"):
        raw.list_clips(NTU, uri)
    assert not is_synthetic(uri)
    filesystem, root = fs.FileSystem.from_uri(uri)
    with filesystem.open_output_stream(f"{root}/sample.json") as stream:
        stream.write(b"{}")
    assert is_synthetic(uri)
