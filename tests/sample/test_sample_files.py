"""The written files: same bytes for a seed, NTU's form, planned faults, no foreign file touched."""

import hashlib
import json
import os
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import PictureType

from components.ntu.skeleton import parse_skeleton
from components.sample import generate
from components.sample.faults import FAULTS, plan_faults
from components.sample.folder import ForeignFilesError
from components.sample.generate import write_sample
from components.sample.plan import ACTIONS, TWO_PERSON, Style, plan_clips
from components.sources import get_source
from components.sources.ingest import look
from pipelines import sample
from pipelines._stage import run_stage

STYLE = Style(seed=5, width=96, height=54, frames=(20, 22), skeleton_noise=0.02, subjects=3)
LEAVES = (3, 15, 19, 21, 22, 23, 24)


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "data"
    write_sample(folder, STYLE, 1, workers=1)
    return folder


def _digests(folder: Path) -> dict[str, str]:
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
    }


def _clean(folder: Path) -> list[str]:
    return [str(name) for name in plan_clips(3, 1)]


def test_same_seed_gives_same_bytes_for_any_number_of_workers(tree: Path, tmp_path: Path) -> None:
    write_sample(tmp_path / "again", STYLE, 1, workers=2)
    assert _digests(tmp_path / "again") == _digests(tree)


def test_another_seed_gives_other_videos_and_skeletons(tree: Path, tmp_path: Path) -> None:
    other = Style(**{**STYLE.__dict__, "seed": 6})
    write_sample(tmp_path / "other", other, 1, dirty=False, workers=1)
    mine, theirs = _digests(tree), _digests(tmp_path / "other")
    for name in _clean(tree):
        for file in (f"nturgb+d_rgb/{name}_rgb.avi", f"nturgb+d_skeletons/{name}.skeleton"):
            assert mine[file] != theirs[file]


def test_videos_are_ntus_kind(tree: Path) -> None:
    videos = [tree / "nturgb+d_rgb" / f"{name}_rgb.avi" for name in _clean(tree)]
    for path in videos:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            frames = list(container.decode(stream))
            assert container.format.name == "avi"
            assert (stream.codec_context.name, stream.codec_context.codec_tag) == ("mpeg4", "DIVX")
            assert stream.codec_context.pix_fmt == "yuv420p"
            assert stream.average_rate == 30
        assert {(f.width, f.height) for f in frames} == {(96, 54)}
        kinds = {PictureType(f.pict_type).name for f in frames}
        assert "I" in kinds and "B" not in kinds
        text = tree / "nturgb+d_skeletons" / path.name.replace("_rgb.avi", ".skeleton")
        assert len(frames) == int(text.read_text().split(maxsplit=1)[0])


def test_skeleton_text_has_every_field(tree: Path) -> None:
    states: list[int] = []
    for name in _clean(tree):
        data = (tree / "nturgb+d_skeletons" / f"{name}.skeleton").read_bytes()
        assert data.endswith(b"\r\n") and data.count(b"\n") == data.count(b"\r\n")
        lines = iter(data.decode("ascii").split("\r\n"))
        people = 2 if int(name[-3:]) in TWO_PERSON else 1
        for _ in range(int(next(lines))):
            assert int(next(lines)) == people
            for _ in range(people):
                head = next(lines).split(" ")
                assert len(head) == 10 and int(head[0]) > 2**53
                assert all(-1 <= float(v) <= 1 for v in head[7:9]) and head[9] == "2"
                assert next(lines) == "25"
                rows = [next(lines).split(" ") for _ in range(25)]
                assert {len(row) for row in rows} == {12}
                states += _check_joints(np.array(rows, dtype=float))
        assert list(lines) == [""]
    share = states.count(1) / len(states)
    assert set(states) == {1, 2} and 0.02 < share < 0.25


def _check_joints(rows: np.ndarray) -> list[int]:
    x, y, z = rows[:, 0], rows[:, 1], rows[:, 2]
    assert np.all((z > 1) & (z < 6))
    # Depth and colour pixels are pinhole projections of the same point; see Kinect v2's lenses.
    np.testing.assert_allclose(rows[:, 3], 255.5 + 365.5 * x / z, atol=0.01)
    np.testing.assert_allclose(rows[:, 4], 211.5 - 365.5 * y / z, atol=0.01)
    np.testing.assert_allclose(rows[:, 5], 959.5 + 1081.37 * (x + 0.052) / z, atol=0.05)
    np.testing.assert_allclose(rows[:, 6], 539.5 - 1081.37 * y / z, atol=0.05)
    length = np.linalg.norm(rows[:, 7:11], axis=1)
    inner = np.setdiff1d(np.arange(25), LEAVES)
    np.testing.assert_allclose(length[inner], 1, atol=1e-5)
    assert not rows[list(LEAVES), 7:11].any()
    return rows[:, 11].astype(int).tolist()


def test_planted_faults_are_usable_or_rejected_as_planned(tree: Path) -> None:
    source = get_source("ntu")
    listing = source.find(tree)
    found = {str(f.clip): f for f in listing.clips}
    planned = {str(n): fault for n, fault in plan_faults(plan_clips(3, 1)).items()}
    assert set(found) == {*_clean(tree), *planned} and set(planned.values()) == set(FAULTS)
    seen = {name: look(source, tree, f) for name, f in found.items()}
    for name in _clean(tree):
        assert seen[name].reason == "" and seen[name].flags == ()
    reasons = {planned[name]: seen[name].reason for name in planned}
    assert reasons.pop("listed_missing") == ""  # its files are fine: the list decides, not a look
    assert {f for f, reason in reasons.items() if not reason} == {f for f in FAULTS if FAULTS[f]}
    flags = {planned[name]: seen[name].flags for name in planned}
    for fault, flag in {
        "empty_start": "empty-start",
        "gap": "frames-without-body",
        "ghost": "ghost-removed",
        "third_body": "third-body-left-out",
        "nan_joints": "joints-repaired",
        "short_video": "frame-counts-differ",
    }.items():
        assert flag in flags[fault]


def test_dirty_lines_and_gaps_are_in_the_text(tree: Path) -> None:
    files = {
        fault: (tree / "nturgb+d_skeletons" / f"{name}.skeleton").read_bytes()
        for name, fault in plan_faults(plan_clips(3, 1)).items()
        if fault != "no_skeleton"
    }
    assert b"\r" not in files["lf_lines"] and files["lf_lines"].endswith(b" \n")
    assert b"nan" in files["nan_joints"]
    assert len(parse_skeleton(files["third_body"]).bodies) == 3


def test_finished_sample_is_left_alone_and_a_lost_file_comes_back(
    tree: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    write_sample(folder, STYLE, 1, workers=1)
    before = _digests(folder)
    stamps = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert write_sample(folder, STYLE, 1, workers=1).written == 0
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == stamps
    lost = folder / "nturgb+d_rgb" / f"{_clean(folder)[2]}_rgb.avi"
    lost.unlink()
    assert write_sample(folder, STYLE, 1, workers=1).written == 1
    assert _digests(folder) == before


def test_interrupted_run_goes_on(tree: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write_sample(folder, STYLE, 1, workers=1)
    whole = _digests(folder)
    marker = json.loads((folder / "sample.json").read_text())
    # What a kill leaves: the marker of the start, some clips, one half-written file.
    marker.update(complete=False, files=dict.fromkeys(marker["files"]))
    (folder / "sample.json").write_text(json.dumps(marker))
    kept = _clean(folder)[:3]
    for path in list(folder.rglob("S*")):
        if not any(name in path.name for name in kept):
            path.unlink()
    half = folder / "nturgb+d_rgb" / f"{_clean(folder)[5]}_rgb.avi.part"
    half.write_bytes(b"RIFF")
    done = write_sample(folder, STYLE, 1, workers=1)
    assert done.written == done.clips + done.faulty - len(kept)
    assert _digests(folder) == whole


def test_other_parameters_replace_the_old_sample_wholly(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write_sample(folder, STYLE, 2, dirty=False, workers=1)
    write_sample(folder, STYLE, 1, dirty=False, workers=1)
    assert len(list((folder / "nturgb+d_rgb").iterdir())) == len(ACTIONS)


def test_folder_with_foreign_files_is_refused_untouched(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    real = folder / "nturgb+d_rgb" / "S001C001P001R001A001_rgb.avi"
    real.parent.mkdir(parents=True)
    real.write_bytes(b"somebody's data")
    with pytest.raises(ForeignFilesError, match="S001C001P001R001A001_rgb.avi"):
        write_sample(folder, STYLE, 1, workers=1)
    assert [p for p in folder.rglob("*") if p.is_file()] == [real]


def test_own_folder_with_a_stranger_or_a_changed_file_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write_sample(folder, STYLE, 1, dirty=False, workers=1)
    video = next((folder / "nturgb+d_rgb").iterdir())
    original = video.read_bytes()
    video.write_bytes(b"a real clip of the same name")
    other = Style(**{**STYLE.__dict__, "seed": 9})
    with pytest.raises(ForeignFilesError, match=video.name):
        write_sample(folder, other, 1, dirty=False, workers=1)
    video.write_bytes(original)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ForeignFilesError, match="notes.txt"):
        write_sample(folder, other, 1, dirty=False, workers=1)


def test_link_to_an_empty_folder_is_filled(tmp_path: Path) -> None:
    real, link = tmp_path / "disk", tmp_path / "data"
    real.mkdir()
    os.symlink(real, link)
    write_sample(link, STYLE, 1, dirty=False, workers=1)
    assert link.is_symlink() and (real / "sample.json").is_file()


def test_stage_writes_a_sample_that_says_it_is_synthetic(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"paths.data={tmp_path / 'd'}", "sample.clips_per_class=1", "seed=1"]
    assert run_stage("sample", sample.main, words) == 0
    assert "12 clips of 12 classes" in capsys.readouterr().out
    assert "no file of NTU-RGB+D was used" in (tmp_path / "d" / "README.md").read_text()
    assert run_stage("sample", sample.main, [*words, "sample.clips_per_class=999"]) == 2
    assert "sample.clips_per_class=999 is more than" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("quota", "expected"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None)]
)
def test_workers_keep_to_the_cpus_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, expected: int | None
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(generate, "CGROUP", tmp_path / "cpu.max")
    assert generate._cpus() == (expected or len(os.sched_getaffinity(0)))
