"""Adapters: official layouts of three data sets to the same clips."""

import json
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from scipy.io import loadmat, savemat

from benchmarks._ntu_files import write_skeleton, write_tree, write_video
from components.config.data import DataSection
from components.ntu import video
from components.ntu.ids import ClipId
from components.ntu.protocol import IMIGUE_TRAIN, Parts, assign
from components.ntu.skeleton import Rejected
from components.sources import Found, get_source, inside
from components.sources.ingest import keep, look
from components.sources.utd_mhad import grey

KEEP = {"frames": 4, "size": 16, "margin": 0.1}


def test_ntu_finds_clips_in_any_folder_and_behind_links(tmp_path: Path) -> None:
    write_tree(tmp_path / "disk", [ClipId(1, 1, 1, 1, 1)], frames=4, width=96, height=54)
    root = tmp_path / "data"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "disk", target_is_directory=True)
    (root / "loop").symlink_to(root, target_is_directory=True)
    write_skeleton(root / "S002C001P001R001A001.skeleton", 4)
    write_video(root / "S002C001P001R001A001.mp4", 4, 96, 54)
    write_skeleton(root / "S002C001P001R001A002.skeleton", 4)
    write_video(root / "S003C001P001R004A120_rgb.avi", 4, 96, 54)
    (root / "notes.skeleton").write_text("1")
    (root / "S002C001P000R001A001.skeleton").write_text("1")
    listing = get_source("ntu").find(root)
    assert [(str(f.clip), bool(f.video), bool(f.skeleton)) for f in listing.clips] == [
        ("S001C001P001R001A001", True, True),
        ("S002C001P001R001A001", True, True),
        ("S002C001P001R001A002", False, True),
        ("S003C001P001R004A120", True, False),
    ]
    assert sorted(listing.strangers) == ["S002C001P000R001A001.skeleton", "notes.skeleton"]


def test_extensions_in_any_case_and_every_file_of_a_clip_are_accounted_for(tmp_path: Path) -> None:
    for name in ("S001C001P001R001A001_rgb.AVI", "s001c001p001r001a001.Skeleton"):
        (tmp_path / name).write_text("1")
    odd = ["S001C001P001R001A002_rgb.avi.part", "S001C001P001R001A002.skeleton.txt"]
    for name in (*odd, "readme.txt"):
        (tmp_path / name).write_text("1")
    listing = get_source("ntu").find(tmp_path)
    assert [(str(f.clip), bool(f.video), bool(f.skeleton)) for f in listing.clips] == [
        ("S001C001P001R001A001", True, True)
    ]
    assert sorted(listing.strangers) == sorted(odd)


@pytest.mark.parametrize("source", ["ntu", "utd_mhad", "imigue"])
def test_a_name_in_another_encoding_is_listed_and_the_rest_goes_on(
    tmp_path: Path, source: str
) -> None:
    bad = os.fsencode(tmp_path) + b"/\xb9\xc7\xbc\xdc"
    os.mkdir(bad)
    (tmp_path / "S001C001P001R001A001.skeleton").write_text("1")
    listing = get_source(source).find(tmp_path)
    # Two of the four bytes are a letter in UTF-8; half a letter among escapes would mislead.
    assert listing.strangers == [r"\xb9\xc7\xbc\xdc"]
    assert json.dumps(listing.strangers).encode("utf-8")
    if source == "ntu":
        assert [str(found.clip) for found in listing.clips] == ["S001C001P001R001A001"]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
def test_a_video_cut_short_is_rejected_and_keeps_no_wrong_times(
    tmp_path: Path, share: float
) -> None:
    write_tree(tmp_path, [ClipId(1, 1, 1, 1, 1)], frames=60, width=96, height=54)
    source = get_source("ntu")
    (found,) = source.find(tmp_path).clips
    assert look(source, tmp_path, found).reason == ""
    video = tmp_path / found.video
    whole = video.read_bytes()
    video.write_bytes(whole[: int(share * len(whole))])
    seen = look(source, tmp_path, found)
    assert seen.reason == "video-truncated" and "promises 60 frames" in seen.detail
    with pytest.raises(Rejected, match="video-truncated"):
        keep(source, tmp_path, found, **KEEP)


CONTAINERS = [("avi", "mpeg4"), ("mp4", "mpeg4"), ("mkv", "mpeg4"), ("webm", "libvpx")]


@pytest.mark.parametrize(("ending", "codec"), CONTAINERS)
def test_a_cut_video_is_seen_in_every_container(tmp_path: Path, ending: str, codec: str) -> None:
    path = tmp_path / f"clip.{ending}"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 54, "yuv420p"
        noise = np.random.default_rng(0).integers(0, 255, (60, 54, 96, 3), np.uint8)
        for picture in noise:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    whole = path.read_bytes()
    info = video.probe(str(path))
    assert (info.frames, info.promised) == (60, 60)
    path.write_bytes(whole[: len(whole) // 2])
    info = video.probe(str(path))
    assert info.promised == 60 and info.frames < 40


def _with_times(path: Path, times: list[int]) -> None:
    """A video at 30 pictures a second, each shown at its time (in pictures)."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 54, "yuv420p"
        noise = np.random.default_rng(0).integers(0, 255, (len(times), 54, 96, 3), np.uint8)
        for time, picture in zip(times, noise, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 30)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        (list(range(60)), ""),
        ([*range(20), *range(40, 60)], "video-uneven"),  # a recorder that stood still
        ([*range(30), *range(30, 60, 2)], "video-uneven"),  # half the rate from the middle on
        ([*range(30), *range(30, 90, 2)], ""),  # a picture for each frame of the skeleton
        ([*range(30), *range(32, 62)], ""),  # two lost: as far off as the streams may be
    ],
)
def test_pictures_missing_in_between_reject_the_clip(
    tmp_path: Path, times: list[int], reason: str
) -> None:
    """A frame's number is its place, so those behind a hole would get the times of others."""
    write_tree(tmp_path, [ClipId(1, 1, 1, 1, 1)], frames=60, width=96, height=54)
    source = get_source("ntu")
    (found,) = source.find(tmp_path).clips
    (tmp_path / found.video).unlink()
    _with_times(tmp_path / "S001C001P001R001A001.mkv", times)
    (found,) = source.find(tmp_path).clips
    seen = look(source, tmp_path, found)
    assert seen.reason == reason
    if reason:
        assert seen.detail.startswith(f"{len(times)} frames in the time of ")
        with pytest.raises(Rejected, match=reason):
            keep(source, tmp_path, found, **KEEP)
    else:
        keep(source, tmp_path, found, **KEEP)


def test_a_cut_that_moves_no_time_is_accepted_and_one_that_stretches_them_is_not(
    tmp_path: Path,
) -> None:
    """UTD-MHAD's streams only cover the same span: what is lost at the end stretches the rest."""
    info = video.VideoInfo(frames=57, width=96, height=54, promised=60)
    ntu = replace(get_source("ntu"), probe=lambda root, found: info)
    write_tree(tmp_path, [ClipId(1, 1, 1, 1, 1)], frames=60, width=96, height=54)
    (found,) = ntu.find(tmp_path).clips
    assert look(ntu, tmp_path, found).reason == ""
    utd = replace(ntu, same_clock=False)
    assert look(utd, tmp_path, found).reason == "video-truncated"
    whole = replace(utd, probe=lambda root, found: info._replace(frames=59))
    assert look(whole, tmp_path, found).reason == ""


def test_frames_that_do_not_decode_reject_the_clip(tmp_path: Path) -> None:
    """Nobody knows which are lost, so the pictures behind them would get the times of others."""
    write_tree(tmp_path, [ClipId(1, 1, 1, 1, 1)], frames=40, width=96, height=54)
    (found,) = get_source("ntu").find(tmp_path).clips
    with pytest.raises(Rejected, match="60 frames are promised, 40"):
        keep(get_source("ntu"), tmp_path, found, **KEEP, expected=60)
    assert keep(get_source("ntu"), tmp_path, found, **KEEP, expected=42).rgb_frames == 40


def test_joints_in_millimetres_are_named(tmp_path: Path) -> None:
    write_tree(tmp_path, [ClipId(1, 1, 1, 1, 1)], frames=9, width=96, height=54)
    (found,) = get_source("ntu").find(tmp_path).clips
    path = tmp_path / found.skeleton
    lines = path.read_text().split("\n")
    wide = [line.split() for line in lines]
    scaled = [
        " ".join([*(f"{1000 * float(x):.1f}" for x in words[:3]), *words[3:]])
        if len(words) == 12
        else " ".join(words)
        for words in wide
    ]
    path.write_text("\n".join(scaled))
    seen = look(get_source("ntu"), tmp_path, found)
    assert seen.reason == "skeleton-unit" and "divide by 1000" in seen.detail


def test_joints_in_millimetres_are_named_in_every_source_of_metres(tmp_path: Path) -> None:
    utd_tree(tmp_path, color=True, depth=False)
    for path in tmp_path.glob("*_skeleton.mat"):
        savemat(path, {"d_skel": 1000 * loadmat(path)["d_skel"]})
    source = get_source("utd_mhad")
    looks = [look(source, tmp_path, found) for found in source.find(tmp_path).clips]
    assert looks and {seen.reason for seen in looks} == {"skeleton-unit"}


def test_broken_and_circular_links_do_not_stop_the_rest(tmp_path: Path) -> None:
    clips = [ClipId(1, 1, 1, 1, 1), ClipId(1, 1, 1, 1, 2)]
    write_tree(tmp_path, clips, frames=4, width=96, height=54)
    source = get_source("ntu")
    video_file = tmp_path / source.find(tmp_path).clips[1].video
    video_file.unlink()
    video_file.symlink_to(tmp_path / "unplugged.avi")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    looks = [look(source, tmp_path, found) for found in source.find(tmp_path).clips]
    assert [seen.reason for seen in looks] == ["", "file-unreadable"]


@pytest.mark.parametrize("fault", ["cut short", "broken link"])
def test_a_broken_first_copy_gives_way_to_a_good_second_one(tmp_path: Path, fault: str) -> None:
    for folder in ("a", "b"):
        write_tree(tmp_path / folder, [ClipId(1, 1, 1, 1, 1)], frames=30, width=96, height=54)
    source = get_source("ntu")
    (found,) = source.find(tmp_path).clips
    first = tmp_path / found.video
    whole = first.read_bytes()
    first.unlink()
    if fault == "broken link":
        first.symlink_to(tmp_path / "unplugged.avi")
    else:
        first.write_bytes(whole[: len(whole) // 3])
    (found,) = source.find(tmp_path).clips
    assert found.video.startswith("b/") and found.flags == ("duplicate-skeleton", "duplicate-video")
    assert look(source, tmp_path, found).reason == ""


def test_half_downloads_of_every_source_are_listed(tmp_path: Path) -> None:
    for name in ("a1_s1_t1_color.avi.part", "A1_S1_T2_skeleton.mat.crdownload"):
        (tmp_path / name).write_text("x")
    assert len(get_source("utd_mhad").find(tmp_path).strangers) == 2
    (tmp_path / "371.mp4.part").write_text("x")
    assert "371.mp4.part" in get_source("imigue").find(tmp_path).strangers


def test_a_label_file_in_another_encoding_is_listed(tmp_path: Path) -> None:
    head = "video_id,label_id,start_frame,end_frame,class,subject_id,note"
    (tmp_path / "labels.csv").write_bytes(f"{head}\n1,1,0,5,1,1,动作\n".encode("gbk"))
    listing = get_source("imigue").find(tmp_path)
    assert listing.strangers == ["labels.csv"] and not listing.clips


def test_values_of_microsofts_runtime_that_are_no_numbers_reject_no_clip(tmp_path: Path) -> None:
    write_tree(tmp_path, [ClipId(1, 1, 1, 1, 1)], frames=9, width=96, height=54)
    source = get_source("ntu")
    (found,) = source.find(tmp_path).clips
    path = tmp_path / found.skeleton
    before = source.people(tmp_path, found).joints
    rows = [line.split() for line in path.read_text().split("\n")]
    odd = ("-1.#IND", "1.#QNAN", "1.#INF", "-1.#IND00")
    texts = [
        " ".join([*words[:7], *odd, words[11]]) if len(words) == 12 else " ".join(words)
        for words in rows
    ]
    path.write_text("\n".join(texts))
    assert look(source, tmp_path, found).reason == ""
    assert np.array_equal(source.people(tmp_path, found).joints, before)


def test_a_clip_found_twice_keeps_one_file_and_is_flagged(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_tree(tmp_path / folder, [ClipId(1, 1, 1, 1, 1)], frames=4, width=96, height=54)
    (found,) = get_source("ntu").find(tmp_path).clips
    assert found.video.startswith("a/") and found.skeleton.startswith("a/")
    assert found.flags == ("duplicate-skeleton", "duplicate-video")


def test_a_missing_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pipelines.sample"):
        get_source("ntu").find(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", "a\\b", "a\0b"])
def test_names_cannot_leave_the_data_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="does not stay inside"):
        inside(tmp_path, name)
    clip = ClipId(1, 1, 1, 1, 1)
    with pytest.raises(ValueError, match="does not stay inside"):
        get_source("ntu").people(tmp_path, Found(clip, "v.avi", name))


def test_unknown_source_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="imigue.*ntu.*utd_mhad"):
        get_source("kinetics")


def utd_skeleton(frames: int) -> np.ndarray:
    """d_skel: 20 x 3 x frames, a standing person of Kinect v1."""
    height = [0.48, 0.3, -0.05, -0.11, 0.19, -0.08, -0.32, -0.34, 0.2, -0.08, -0.31, -0.37]
    height += [-0.19, -0.66, -1.02, -1.09, -0.19, -0.66, -1.02, -1.08]
    side = [0, 0, 0, 0, -0.2, -0.24, -0.24, -0.23, 0.13, 0.19, 0.21, 0.22]
    side += [-0.1, -0.11, -0.07, -0.11, 0.05, 0.07, 0.05, 0.1]
    one = np.column_stack([side, height, np.full(20, 2.8)])
    steps = 1 + 0.05 * np.sin(np.arange(frames))
    return one[:, :, None] * np.array([1, 1, 1])[None, :, None] * steps


def utd_tree(root: Path, *, color: bool, depth: bool) -> None:
    root.mkdir(exist_ok=True)
    for subject in (1, 2):
        stem = root / f"a3_s{subject}_t1"
        savemat(f"{stem}_skeleton.mat", {"d_skel": utd_skeleton(12)})
        savemat(f"{stem}_inertial.mat", {"d_iner": np.zeros((4, 6))})
        if depth:
            picture = np.full((240, 320, 12), 2500, np.uint16)
            picture[:, :160] = 0
            savemat(f"{stem}_depth.mat", {"d_depth": picture})
        if color:
            write_video(Path(f"{stem}_color.avi"), 6, 128, 96)


def test_utd_colour_goes_before_depth_and_spans_the_same_time(tmp_path: Path) -> None:
    utd_tree(tmp_path, color=True, depth=True)
    source = get_source("utd_mhad")
    listing = source.find(tmp_path)
    assert [str(f.clip) for f in listing.clips] == ["S001C001P001R001A003", "S001C001P002R001A003"]
    assert listing.clips[0].video == "a3_s1_t1_color.avi" and not listing.strangers
    kept = keep(source, tmp_path, listing.clips[0], **KEEP)
    # Six frames of colour cover what twelve of skeleton do.
    assert (kept.rgb_frames, kept.rgb_fps, kept.skeleton_fps) == (6, 15.0, 30.0)


def test_utd_depth_is_shown_by_the_grey_rule(tmp_path: Path) -> None:
    np.testing.assert_array_equal(
        grey(np.array([0, 500, 1000, 2500, 4000, 9000], np.uint16)), [0, 255, 255, 128, 1, 1]
    )
    utd_tree(tmp_path, color=False, depth=True)
    source = get_source("utd_mhad")
    (first, _) = source.find(tmp_path).clips
    assert first.video == "a3_s1_t1_depth.mat"
    seen = look(source, tmp_path, first)
    assert (seen.reason, seen.rgb_frames, seen.width, seen.height) == ("", 12, 320, 240)
    kept = keep(source, tmp_path, first, **KEEP)
    assert kept.rgb_fps == 30.0
    assert not kept.rgb[:, 8, 0].any() and (np.abs(kept.rgb[:, 8, -1].astype(int) - 128) < 3).all()
    assert kept.box.side < 240 and kept.box.left > 0  # around the person, not the whole frame


def test_utd_depth_can_be_asked_for_beside_colour(tmp_path: Path) -> None:
    utd_tree(tmp_path, color=True, depth=True)
    videos = [f.video for f in get_source("utd_mhad_depth").find(tmp_path).clips]
    assert videos == ["a3_s1_t1_depth.mat", "a3_s2_t1_depth.mat"]


def test_utd_joints_are_mapped_to_25(tmp_path: Path) -> None:
    utd_tree(tmp_path, color=False, depth=True)
    source = get_source("utd_mhad")
    people = source.people(tmp_path, source.find(tmp_path).clips[0])
    old, new = utd_skeleton(12)[:, :, 5], people.joints[5, 0]
    pairs = {0: 3, 1: 2, 3: 0, 4: 4, 11: 11, 15: 15, 19: 19, 20: 1, 21: 7, 22: 7, 23: 11, 24: 11}
    for joint, source_joint in pairs.items():
        np.testing.assert_allclose(new[joint], old[source_joint], rtol=1e-5)
    np.testing.assert_allclose(new[2], (2 * old[1] + old[0]) / 3, rtol=1e-5)
    assert people.present[:, 0].all() and not people.present[:, 1].any()


@pytest.mark.parametrize("content", [b"", b"nonsense" * 100, "wrong key", "wrong shape"])
def test_utd_damaged_mat_files_are_rejected(tmp_path: Path, content: bytes | str) -> None:
    utd_tree(tmp_path, color=False, depth=True)
    for name, key, reason in (
        ("a3_s1_t1_skeleton.mat", "d_skel", "skeleton-malformed"),
        ("a3_s2_t1_depth.mat", "d_depth", "video-unreadable"),
    ):
        if isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        else:
            savemat(tmp_path / name, {key if "shape" in content else "x": np.zeros((2, 2, 2, 2))})
        source = get_source("utd_mhad")
        found = next(f for f in source.find(tmp_path).clips if name in (f.video, f.skeleton))
        assert look(source, tmp_path, found).reason == reason


def imigue_tree(root: Path, rows: list[str]) -> None:
    (root / "Label").mkdir(parents=True)
    head = (
        "video_id,label_id,start_time,start_frame,end_time,end_frame,class,subject_id,win_or_lose"
    )
    (root / "Label" / "labels.csv").write_text("\n".join([head, *rows]) + "\n")
    folder = root / "skeleton" / "371"
    folder.mkdir(parents=True)
    write_video(root / "371.mp4", 40, 128, 96)
    rng = np.random.default_rng(0)
    for number in range(40):
        flat = np.zeros((67, 3))
        seen = [0, 1, 2, 3, 4, 5, 6, 7, 34, 55, 29, 50, 37, 58]  # no legs, as behind a desk
        flat[seen] = rng.uniform((30, 20, 0.5), (90, 80, 1), (len(seen), 3)) + (number, 0, 0)
        person = {
            "pose_keypoints_2d": flat[:25].ravel().tolist(),
            "hand_left_keypoints_2d": flat[25:46].ravel().tolist(),
            "hand_right_keypoints_2d": flat[46:].ravel().tolist(),
        }
        far = {key: (np.array(value) * 0.1).tolist() for key, value in person.items()}
        persons = [] if number == 12 else [far, person]
        text = json.dumps({"version": 1.3, "people": persons})
        (folder / f"371_{number:012d}_keypoints.json").write_text(text)


def test_imigue_clips_are_spans_of_long_videos(tmp_path: Path) -> None:
    rows = ["371,1,0.3,10,0.8,25,20,1,Win", "371,2,1.0,30,1.2,36,99,1,Win", "372,1,0,0,1,9,3,2,Win"]
    imigue_tree(tmp_path, rows)
    source = get_source("imigue")
    assert source.unit == "pixels"
    listing = source.find(tmp_path)
    assert [str(f.clip) for f in listing.clips] == [
        "S371C001P001R001A020",
        "S371C001P001R002A099",
        "S372C001P002R001A003",
    ]
    seen = [look(source, tmp_path, found) for found in listing.clips]
    assert [s.reason for s in seen] == ["", "", "no-video"]
    assert (seen[0].rgb_frames, seen[0].skeleton_frames) == (16, 16)
    people = source.people(tmp_path, listing.clips[0])
    assert people.present[:, 0].tolist() == [i != 2 for i in range(16)]  # frame 12 has nobody
    assert not people.joints[..., 2].any() and 40 < people.joints[0, 0, 3, 0] < 110
    kept = keep(source, tmp_path, listing.clips[0], **KEEP)
    assert kept.rgb_frames == 16 and kept.rgb.any() and kept.rgb_fps == kept.skeleton_fps


def test_imigue_label_files_are_checked(tmp_path: Path) -> None:
    imigue_tree(tmp_path, ["371,1,0.3,25,0.8,10,20,1,Win"])
    with pytest.raises(ValueError, match="labels.csv, line 2: frames 25 to 10"):
        get_source("imigue").find(tmp_path)


def test_imigue_damaged_joints_are_rejected(tmp_path: Path) -> None:
    imigue_tree(tmp_path, ["371,1,0.3,10,0.8,25,20,1,Win"])
    (tmp_path / "skeleton" / "371" / f"371_{15:012d}_keypoints.json").write_text('{"people": [{}]}')
    source = get_source("imigue")
    with pytest.raises(Rejected, match="skeleton-malformed"):
        source.people(tmp_path, source.find(tmp_path).clips[0])


def test_imigue_protocol_trains_on_its_37_subjects() -> None:
    subjects = np.arange(1, 73)
    ones = np.ones(72, int)
    chosen = assign(Parts(ones, ones, subjects, ones * 99), DataSection(protocol="imigue"))
    training = chosen.train | chosen.val
    assert training.sum() == 37 and chosen.test.sum() == 35
    assert set(subjects[training].tolist()) == set(IMIGUE_TRAIN)
