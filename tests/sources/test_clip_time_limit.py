"""A clip that cannot be read in time is rejected with its reason, and the others go on."""

import json
import os
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks._ntu_files import write_tree
from components.ntu import video
from components.ntu.ids import ClipId
from components.ntu.skeleton import Rejected
from components.shards.raw import look_at_all
from components.shards.storage import open_store
from components.shards.writer import plan_shards, write_shard
from components.sources import get_source
from components.sources.ingest import keep
from components.sources.limit import within

KEEP = {"frames": 4, "size": 16, "margin": 0.1}
CLIPS = [ClipId(1, 1, subject, 1, 1) for subject in (1, 2, 3)]
SLOW = CLIPS[1]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three clips; the video of the second is small on disk and takes many seconds to decode."""
    write_tree(tmp_path, CLIPS, frames=8, width=96, height=54, distinct=1)
    path = tmp_path / "nturgb+d_rgb" / f"{SLOW}_rgb.avi"
    path.unlink()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 4096, 4096, "yuv420p"
        grey = np.full((6144, 4096), 128, np.uint8)
        for number in range(2):  # the second packet says: as before
            frame = av.VideoFrame.from_ndarray(grey, format="yuv420p")
            frame.pts = number
            (packet,) = stream.encode(frame)
            container.mux(packet)
        for number in range(2, 4000):
            packet.pts = packet.dts = number
            container.mux(packet)
    assert path.stat().st_size < 64 << 20
    return tmp_path


def test_a_video_that_decodes_for_ever_holds_up_nobody(tree: Path, tmp_path: Path) -> None:
    source = get_source("ntu")
    found = source.find(tree).clips
    assert [seen.reason for seen in look_at_all(source, tree, found, 5.0)] == ["", "", ""]
    settings = {"source": "ntu", "unit": "metres", "codec": "raw", "jpeg_quality": 0, **KEEP}
    (plan,) = plan_shards(
        [(clip, 0, "") for clip in found],
        clips_per_shard=3,
        root=str(tree),
        where=str(tmp_path / "shards"),
        settings=settings,
        seconds=0.5,
    )
    began = time.monotonic()
    written = write_shard(plan)
    assert time.monotonic() - began < 30
    assert written.record["rows"] == 2
    (rejected,) = written.record["rejected"]
    assert (rejected["clip_id"], rejected["reason"]) == (str(SLOW), "too-slow")
    # Perhaps the machine was busy: such a shard is not taken for finished, others are.
    assert write_shard(plan).fresh
    record = open_store(tmp_path / "shards").path("shard-000000.json")
    assert json.loads(Path(record).read_text())["rejected"]


def test_the_thread_of_a_slow_video_ends_too(tree: Path) -> None:
    source = get_source("ntu")
    (slow,) = (f for f in source.find(tree).clips if f.clip == SLOW)
    with pytest.raises(Rejected, match="too-slow"):
        keep(source, tree, slow, **KEEP, seconds=0.5)
    for thread in [t for t in threading.enumerate() if t.name == "clip"]:
        thread.join(30)
        assert not thread.is_alive()


def test_a_read_that_never_returns_is_left_behind(tmp_path: Path) -> None:
    pipe = tmp_path / "video.avi"
    os.mkfifo(pipe)
    keeper = os.open(pipe, os.O_RDWR)  # an open writer that writes nothing
    with pytest.raises(Rejected, match="too-slow: not read after 0.2 s"):
        within(0.2, pipe.read_bytes)
    os.write(keeper, b"x")
    os.close(keeper)  # lets the thread end
    assert within(5.0, lambda: 3) == within(0, lambda: 3) == 3


@pytest.mark.parametrize("name", ["video", "skeleton"])
def test_a_pipe_instead_of_a_file_is_rejected_at_once(tmp_path: Path, name: str) -> None:
    write_tree(tmp_path, CLIPS[:2], frames=8, width=96, height=54, distinct=1)
    source = get_source("ntu")
    found = source.find(tmp_path).clips
    path = tmp_path / getattr(found[1], name)
    path.unlink()
    os.mkfifo(path)
    first, second = look_at_all(source, tmp_path, found, 60.0)
    assert (first.reason, second.reason) == ("", "file-unreadable")
    assert "no regular file" in second.detail
    with pytest.raises(Rejected, match="file-unreadable"):
        keep(source, tmp_path, found[1], **KEEP)


def test_endless_packets_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path, CLIPS[:1], frames=30, width=96, height=54)
    path = str(tmp_path / "nturgb+d_rgb" / f"{CLIPS[0]}_rgb.avi")
    assert video.probe(path).frames == 30
    monkeypatch.setattr(video, "MAX_PACKETS", 20)
    for read in (video.probe, lambda p: list(video.decode(p))):
        with pytest.raises(Rejected, match="more than 20 packets"):
            read(path)
