"""Annotation files of pyskl, and exports of Azure Kinect, through index and shards' readers."""

import json
import pickle  # noqa: TID251 - writes annotation files as pyskl publishes them
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks._ntu_files import write_skeleton, write_video
from components.errors import UserError
from components.ntu.ids import ClipId
from components.ntu.people import choose_people
from components.ntu.skeleton import Rejected, read_skeleton
from components.sources import get_source
from components.sources.azure_joints import FROM_AZURE, read_csv, read_json
from components.sources.ingest import keep, look

FRAMES = 14
CLIPS = [ClipId(1, 1, 1, 1, 7), ClipId(1, 2, 3, 1, 60)]


def annotation(clip: ClipId, seed: int, folder: Path) -> dict[str, Any]:
    """As tools/data/ntu_preproc.py of pyskl writes one: float16 [M, T, 25, 3], label from 0."""
    write_skeleton(folder / "raw.skeleton", FRAMES, seed)
    joints = read_skeleton(folder / "raw.skeleton").bodies[0].joints
    (folder / "raw.skeleton").unlink()
    return {
        "frame_dir": str(clip),
        "label": clip.action - 1,
        "keypoint": joints[None].astype(np.float16),
        "total_frames": FRAMES,
    }


@pytest.fixture
def pyskl(tmp_path: Path) -> Path:
    """Two clips, one annotation file at the protocol that mmcv uses, videos in NTU's folder."""
    root = tmp_path / "pyskl"
    (root / "nturgb+d_rgb").mkdir(parents=True)
    entries = [annotation(clip, i, root) for i, clip in enumerate(CLIPS)]
    names = [str(clip) for clip in CLIPS]
    body = {"split": {"xsub_train": names[:1], "xsub_val": names[1:]}, "annotations": entries}
    (root / "ntu60_3danno.pkl").write_bytes(pickle.dumps(body, protocol=2))
    for i, name in enumerate(names):
        write_video(root / "nturgb+d_rgb" / f"{name}_rgb.avi", FRAMES, 96, 54, i)
    return root


def rewrite(root: Path, change: Any, protocol: int = 4) -> None:
    path = root / "ntu60_3danno.pkl"
    body = pickle.loads(path.read_bytes())  # noqa: S301 - written by this file
    path.write_bytes(pickle.dumps(change(body) or body, protocol=protocol))


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("bare", [False, True])
def test_pyskl_clips_are_those_of_the_skeleton_files(
    pyskl: Path, protocol: int, bare: bool
) -> None:
    rewrite(pyskl, lambda body: body["annotations"] if bare else body, protocol)
    source = get_source("pyskl")
    found = source.find(pyskl)
    assert [f.clip for f in found.clips] == CLIPS and found.strangers == []
    for i, clip in enumerate(found.clips):
        seen = look(source, pyskl, clip)
        assert (seen.reason, seen.rgb_frames, seen.skeleton_frames) == ("", FRAMES, FRAMES)
        write_skeleton(pyskl / "raw.skeleton", FRAMES, i)
        raw = choose_people(read_skeleton(pyskl / "raw.skeleton"))
        (pyskl / "raw.skeleton").unlink()
        kept = keep(source, pyskl, clip, frames=4, size=16, margin=0.15)
        assert np.abs(kept.people.joints - raw.joints).max() < 2e-3  # float16 at 3 m
        assert (kept.people.present == raw.present).all()
        assert "whole-frame" in kept.flags and kept.rgb.shape == (4, 16, 16, 3)


def test_pyskl_digest_is_of_the_clip_alone(pyskl: Path) -> None:
    source = get_source("pyskl")
    before = [look(source, pyskl, f).digest for f in source.find(pyskl).clips]

    def move(body: dict[str, Any]) -> None:
        body["annotations"][1]["keypoint"][0, 0, 0, 0] += 1

    rewrite(pyskl, move, protocol=2)
    after = [look(source, pyskl, f).digest for f in source.find(pyskl).clips]
    assert before[0] == after[0] and before[1] != after[1]


def test_two_persons_and_one_who_leaves(pyskl: Path) -> None:
    def second(body: dict[str, Any]) -> None:
        entry = body["annotations"][0]
        other = entry["keypoint"].copy()
        other[..., 0] += 1
        other[:, 13:] = 0
        entry["keypoint"] = np.concatenate([entry["keypoint"], other])

    rewrite(pyskl, second)
    source = get_source("pyskl")
    people = source.people(pyskl, source.find(pyskl).clips[0])
    assert people.present.sum(axis=0).tolist() in ([14, 13], [13, 14])


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("label", 3, "label 3"),
        ("total_frames", 99, "99 promised"),
        ("keypoint", np.zeros((1, 0, 25, 3), "f2"), "0 frames"),
        ("keypoint", np.zeros((1, FRAMES, 25, 3), "f2"), "no usable body"),
        ("keypoint", np.full((1, FRAMES, 25, 3), 3000, "f2"), "skeleton-unit"),
    ],
)
def test_a_bad_annotation_costs_its_clip(pyskl: Path, field: str, value: Any, reason: str) -> None:
    rewrite(pyskl, lambda body: body["annotations"][0].update({field: value}))
    source = get_source("pyskl")
    bad, good = (look(source, pyskl, f) for f in source.find(pyskl).clips)
    assert reason in f"{bad.reason} {bad.detail}" and not good.reason


def test_2d_annotations_are_left_alone_and_listed(pyskl: Path) -> None:
    entry = {"frame_dir": str(CLIPS[0]), "label": 6, "keypoint": np.zeros((1, 3, 17, 2), "f2")}
    (pyskl / "ntu60_hrnet.pkl").write_bytes(pickle.dumps({"annotations": [entry]}))
    found = get_source("pyskl").find(pyskl)
    assert found.strangers == ["ntu60_hrnet.pkl"] and len(found.clips) == 2


@pytest.mark.parametrize("body", [{"annotations": []}, 3, {"annotations": [{"label": 1}]}])
def test_another_pickle_is_one_clear_error(pyskl: Path, body: Any) -> None:
    (pyskl / "ntu60_3danno.pkl").write_bytes(pickle.dumps(body))
    with pytest.raises(UserError, match=r"ntu60_3danno\.pkl.*annotation"):
        get_source("pyskl").find(pyskl)


def sdk_joints(frame: int, person: int) -> np.ndarray:
    """[32, 3] in millimetres, x right, y down: joint j at x = 10 j, each frame 1 mm farther."""
    joints = np.zeros((32, 3))
    joints[:, 0] = 10.0 * np.arange(32) + 1000 * person
    joints[:, 1] = -20.0 * np.arange(32) + 300
    joints[:, 2] = 2500 + frame
    return joints


def offline_processor(frames: int, persons: int = 1) -> dict[str, Any]:
    return {
        "k4abt_sdk_version": "1.1.2",
        "source_file": "a.mkv",
        "frames": [
            {
                "timestamp_usec": 33333 * t,
                "frame_id": t,
                "num_bodies": persons,
                "bodies": [
                    {"body_id": p + 1, "joint_positions": sdk_joints(t, p).tolist()}
                    for p in range(persons)
                ],
            }
            for t in range(frames)
        ],
    }


def table(frames: int, persons: int, header: bool = False) -> str:
    rows = [",".join(["time", *(f"c{i}" for i in range(96 * persons))])] if header else []
    for t in range(frames):
        numbers = np.concatenate([sdk_joints(t, p).ravel() for p in range(persons)])
        rows.append(",".join([str(33 * t), *(f"{n:.3f}" for n in numbers)]))
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize("header", [False, True])
def test_azure_json_and_csv_give_the_same_25_joints(header: bool) -> None:
    one = read_json(json.dumps(offline_processor(FRAMES, 2)).encode())
    other = read_csv(table(FRAMES, 2, header).encode())
    assert one.num_frames == other.num_frames == FRAMES
    for first, second in zip(one.bodies, other.bodies, strict=True):
        assert np.allclose(first.joints, second.joints) and (first.frames == second.frames).all()
    head = one.bodies[0].joints[5, 3]  # HEAD is joint 26 of the SDK; y up, metres
    assert np.allclose(head, [-0.26, -(-20 * 26 + 300) / 1000, 2.505])
    assert len(set(FROM_AZURE)) == 25


def test_joints_in_metres_are_taken_as_such() -> None:
    rows = [",".join(["0", *(f"{n / 1000:.6f}" for n in sdk_joints(0, 0).ravel())])] * 3
    assert np.allclose(read_csv("\n".join(rows).encode()).bodies[0].joints[0, 0, 2], 2.5)


@pytest.mark.parametrize(
    ("read", "data", "told"),
    [
        (read_json, b"{", "no `frames`"),
        (read_json, b"[]", "no `frames`"),
        (read_json, b'{"frames": []}', "no frame"),
        (read_json, b'{"frames": [{"bodies": [{"body_id": 1, "joint_positions": [[1, 2, 3]]}]}]}',
         "not 32 x 3"),
        (read_csv, b"", "no frame"),
        (read_csv, b"1,2,3\n", "97, 193"),
        (read_csv, b"\xff\xfe", "UTF-8"),
        (read_csv, (table(2, 1) + "1,2\n").encode(), "row 2 has 2 columns"),
        (read_csv, table(2, 1).replace("300.000", "abc", 1).encode(), "row 0"),
    ],
)  # fmt: skip
def test_bad_joint_files_are_named(read: Any, data: bytes, told: str) -> None:
    with pytest.raises(Rejected, match=told):
        read(data)


def test_duet_folders_and_named_files_go_into_shards(tmp_path: Path) -> None:
    for time in ("20230131-1", "20230131-2"):
        rgb, joints = (tmp_path / kind / "CC0304" / time for kind in ("RGB", "Skeleton"))
        rgb.mkdir(parents=True)
        joints.mkdir(parents=True)
        for t in range(FRAMES):
            Image.new("RGB", (64, 48), (10 * t, 0, 0)).save(rgb / f"{t}.jpeg", quality=95)
        (joints / "joints.csv").write_text(table(FRAMES, 2))
    name = "S004C001P009R001A002"
    (tmp_path / f"{name}.json").write_text(json.dumps(offline_processor(FRAMES)))
    write_video(tmp_path / f"{name}.mkv", FRAMES, 64, 48)
    source = get_source("azure_kinect")
    found = source.find(tmp_path).clips
    assert [str(f.clip) for f in found] == ["S002C001P004R001A003", "S002C001P004R002A003", name]
    for clip in found:
        seen = look(source, tmp_path, clip)
        assert (seen.reason, seen.rgb_frames, seen.skeleton_frames) == ("", FRAMES, FRAMES)
    kept = keep(source, tmp_path, found[0], frames=7, size=16, margin=0.15)
    reds = [round(float(p[8, 8, 0]) / 10) for p in kept.rgb]
    assert reds == kept.rgb_index.tolist()  # in the order of their numbers: 2.jpeg before 10.jpeg
    assert kept.people.persons == 2


def test_a_broken_frame_costs_its_clip(tmp_path: Path) -> None:
    rgb, joints = (tmp_path / kind / "CM0101" / "t" for kind in ("RGB", "Skeleton"))
    rgb.mkdir(parents=True)
    joints.mkdir(parents=True)
    (joints / "a.csv").write_text(table(2, 1))
    (rgb / "0.jpeg").write_bytes(b"no picture")
    source = get_source("azure_kinect")
    seen = look(source, tmp_path, source.find(tmp_path).clips[0])
    assert seen.reason == "video-unreadable" and "0.jpeg" in seen.detail
