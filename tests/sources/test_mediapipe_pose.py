"""A folder of videos with estimated joints, and the table that says what each video shows."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks._ntu_files import write_video
from components.config import Config
from components.datasets.split import Split, describe
from components.errors import UserError
from components.ntu.joints import JOINT_NAMES
from components.ntu.skeleton import Rejected
from components.shards import ShardSet
from components.shards.manifest import manifest_table
from components.shards.raw import look_at_all
from components.shards.sealing import seal
from components.shards.storage import open_store
from components.shards.writer import plan_shards, write_shard
from components.sources import get_source
from components.sources.clip_table import read_table
from components.sources.ingest import keep, look
from components.sources.mediapipe_pose import DISTANCE, FROM_MEDIAPIPE, LANDMARKS
from pipelines.index import summarise

FRAMES = 14
SOURCE = get_source("mediapipe")


def marks(frames: int = FRAMES) -> np.ndarray:
    """Landmark i at (0.4 + i / 200, 0.1 + i / 50) and (i, 2 i, -i) cm."""
    out = np.zeros((frames, LANDMARKS, 5), np.float32)
    i = np.arange(LANDMARKS, dtype=np.float32)
    out[..., 0], out[..., 1] = 0.4 + i / 200, 0.1 + i / 50
    out[..., 2:] = np.stack([i, 2 * i, -i], -1) / 100
    return out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two videos of one person named in a table, and one named as a clip."""
    for name in ("walk a.mp4", "sub/wave.mkv", "S001C001P002R001A003.avi"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        write_video(path, FRAMES, 96, 54) if path.suffix == ".avi" else _mp4(path)
        np.save(path.with_name(path.stem + ".pose.npy"), marks())
    (tmp_path / "clips.csv").write_text(
        "file,action,subject,replication\nwalk a.mp4,1,1,\nsub/wave.mkv,2,1,2\n"
    )
    return tmp_path


def _mp4(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 54, "yuv420p"
        for i in range(FRAMES):
            picture = np.full((54, 96, 3), 40 + 6 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def test_clips_of_a_folder_are_read(folder: Path) -> None:
    listing = SOURCE.find(folder)
    assert [str(f.clip) for f in listing.clips] == [
        "S001C001P001R001A001", "S001C001P001R002A002", "S001C001P002R001A003",
    ]  # fmt: skip
    assert listing.strangers == []
    for found in listing.clips:
        seen = look(SOURCE, folder, found)
        assert (seen.reason, seen.rgb_frames, seen.skeleton_frames) == ("", FRAMES, FRAMES)
        kept = keep(SOURCE, folder, found, frames=4, size=16, margin=0.15)
        assert "whole-frame" not in kept.flags  # the landmarks say where the person is


def test_landmarks_become_joints(folder: Path) -> None:
    people = SOURCE.people(folder, SOURCE.find(folder).clips[0])
    place = dict(zip(JOINT_NAMES, people.joints[3, 0], strict=True))
    at = {i: np.array([-i / 100, -2 * i / 100, DISTANCE - i / 100]) for i in range(33)}
    assert np.allclose(place["SpineBase"], (at[23] + at[24]) / 2, atol=1e-5)
    assert np.allclose(place["SpineMid"], (at[11] + at[12] + at[23] + at[24]) / 4, atol=1e-5)
    assert np.allclose(place["HandTipR"], at[20], atol=1e-5)
    assert np.allclose(place["FootL"], at[31], atol=1e-5)
    assert np.allclose(people.pixels[0, 0, 3], (0.4, 0.1))
    assert len(FROM_MEDIAPIPE) == 25 and people.persons == 1


def test_frames_without_a_person_stay_empty(folder: Path) -> None:
    some = marks()
    some[3:5] = np.nan
    np.save(folder / "walk a.pose.npy", some)
    people = SOURCE.people(folder, SOURCE.find(folder).clips[0])
    assert np.flatnonzero(~people.present[:, 0]).tolist() == [3, 4]
    np.save(folder / "walk a.pose.npy", np.full_like(some, np.nan))
    with pytest.raises(Rejected, match="no-body"):
        SOURCE.people(folder, SOURCE.find(folder).clips[0])


@pytest.mark.parametrize(
    "body", [b"", b"not numpy", np.zeros((3, 17, 5), "f4"), np.zeros((0, 33, 5), "f4"),
             np.array([{}], object), np.zeros((3, 33, 5), "i4")],
)  # fmt: skip
def test_bad_joint_files_cost_their_clip(folder: Path, body: bytes | np.ndarray) -> None:
    path = folder / "walk a.pose.npy"
    if isinstance(body, bytes):
        path.write_bytes(body)
    else:
        np.save(path, body, allow_pickle=True)
    clips = SOURCE.find(folder).clips
    assert look(SOURCE, folder, clips[0]).reason.startswith("skeleton-")
    assert not look(SOURCE, folder, clips[1]).reason


def test_a_video_without_joints_and_one_without_a_name(folder: Path) -> None:
    (folder / "walk a.pose.npy").unlink()
    _mp4(folder / "other.mp4")
    listing = SOURCE.find(folder)
    assert listing.strangers == ["other.mp4"]
    assert look(SOURCE, folder, listing.clips[0]).reason == "no-skeleton"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("file,action\na.mp4,1\n", "no column 'subject'"),
        ("", "no column 'file'"),
        ("file,action,subject\na.mp4,x,1\n", "line 2: .*'x'"),
        ("file,action,subject\na.mp4,,1\n", "line 2: action and subject"),
        ("file,action,subject\na.mp4,0,1\n", "line 2: action 0"),
        ("file,action,subject\n../a.mp4,1,1\n", "line 2: .*inside"),
        ("file,action,subject\na.mp4,1,1\nb.mp4,1,1\n", "line 3: .*line 2 already"),
    ],
)
def test_bad_tables_name_the_line(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "clips.csv").write_text(text)
    with pytest.raises(UserError, match=told):
        read_table(tmp_path, "clips.csv")


def test_a_table_in_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_bytes("file,action,subject\nä,1,1\n".encode("latin-1"))
    with pytest.raises(UserError, match="UTF-8"):
        read_table(tmp_path, "clips.csv")


def test_a_line_without_its_video_is_named(folder: Path) -> None:
    (folder / "walk a.mp4").unlink()
    with pytest.raises(UserError, match=r"walk a\.mp4, which is no video"):
        SOURCE.find(folder)


def test_index_says_whose_joints_these_are(folder: Path) -> None:
    table = manifest_table(look_at_all(SOURCE, folder, SOURCE.find(folder).clips, 60.0))
    summary = summarise(table, Config().data, "mediapipe")
    assert any("estimated from the same pixels" in note for note in summary["notes"])
    sensor = summarise(table, Config().data, "ntu")
    assert not any("estimated" in note for note in sensor.get("notes", ()))


def test_what_card_and_export_print_says_it_too(folder: Path, tmp_path: Path) -> None:
    settings = {"source": "mediapipe", "unit": "metres", "codec": "raw", "jpeg_quality": 0}
    settings |= {"frames": 4, "size": 16, "margin": 0.15}
    where = tmp_path / "shards"
    clips = [(found, 0, "") for found in SOURCE.find(folder).clips]
    plans = plan_shards(
        clips, clips_per_shard=8, root=str(folder), where=str(where), settings=settings
    )
    seal(open_store(where, create=True), [write_shard(plan) for plan in plans], settings)
    none = np.empty(0, np.int64)
    split = Split(np.arange(3), none, none, [1, 2, 3])
    told = describe(Config().data, ShardSet.open(where), split)
    assert told["clips"] == 3 and any("is a convention" in note for note in told["notes"])
