"""`amr inspect`: what is said of sound clips and of each planted fault, and the picture."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib import image

from components.sample.faults import FAULTS
from pipelines.inspect_clip import main, spans
from tests._support.cli import amr, write_clips

SOUND = "S001C001P002R001A007"
REASONS = {
    "listed_missing": "missing-skeleton",
    "truncated_skeleton": "skeleton-truncated",
    "empty_skeleton": "no-body",
    "no_skeleton": "no-skeleton",
    "no_video": "no-video",
    "broken_video": "video-unreadable",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample with planted faults."""
    return write_clips(tmp_path_factory.mktemp("sample") / "data")


@pytest.fixture(scope="module")
def planted(data: Path) -> dict[str, str]:
    """Clip by fault, as the sample's README lists them."""
    lines = (data / "README.md").read_text().partition("## Planted faults")[2].splitlines()
    rows = (line.removeprefix("- ").partition(": ") for line in lines if line.startswith("- "))
    return {fault.partition(" ")[0]: clip for clip, _, fault in rows}


def facts(text: str) -> dict[str, str]:
    """The lines by their first word."""
    return {line[:11].strip(): line[11:] for line in text.splitlines()}


def test_a_sound_clip(data: Path, tmp_path: Path) -> None:
    picture = tmp_path / "clip.png"
    done = amr("inspect", SOUND, f"paths.data={data}", "--png", picture)
    assert done.returncode == 0, done.stderr
    found = facts(done.stdout)
    assert found["clip"] == f"{SOUND}  throw"
    text = (data / "nturgb+d_skeletons" / f"{SOUND}.skeleton").read_text()
    frames = int(text.split()[0])
    assert found["video"] == f"{frames} frames of 96 x 64, 30 fps, {frames / 30:.1f} s"
    assert found["skeleton"] == f"{frames} frames, bodies tracked: 1, dropped: 0, people kept: 1"
    assert found["person 1"] == f"{frames} frames: 0-{frames - 1}" and found["missing"] == "0"
    assert found["joints"].endswith("(metres)") and "z 2." in found["joints"]
    assert "pixels, left" in found["crop"]
    assert (found["flags"], found["verdict"]) == ("none", "accepted")
    shown = image.imread(picture)
    assert shown.shape[1] > 2 * shown.shape[0]
    red, green, blue = np.moveaxis(shown[..., :3], 2, 0)
    yellow = (red > 0.7) & (green > 0.7) & (blue < 0.4)
    assert yellow.any(axis=0).sum() > 100, "no crop box is drawn"


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named(
    fault: str, data: Path, planted: dict[str, str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    picture = tmp_path / "clip.png"
    status = main([planted[fault], f"paths.data={data}", "--png", str(picture)])
    found = facts(capsys.readouterr().out)
    assert status == (0 if FAULTS[fault] else 1)
    assert picture.stat().st_size > 5000  # also of a clip of which one half can be read
    if FAULTS[fault]:
        assert found["verdict"] == "accepted"
    else:
        assert found["verdict"].startswith(f"rejected, {REASONS[fault]}: ")
    expected = {
        "empty_start": ("missing", "5 frames without a body: 0-4"),
        "ghost": ("flags", "ghost-removed"),
        "third_body": ("skeleton", "people kept: 2"),
        "short_video": ("flags", "frame-counts-differ"),
        "no_video": ("skeleton", "people kept: 1"),
        "broken_video": ("skeleton", "people kept: 1"),
        "truncated_skeleton": ("video", "frames of 96 x 64"),
    }
    if fault in expected:
        line, words = expected[fault]
        assert words in found[line]


def test_a_clip_is_found_by_its_files(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = data / "nturgb+d_rgb" / f"{SOUND}_rgb.avi"
    skeleton = data / "nturgb+d_skeletons" / f"{SOUND}.skeleton"
    texts = []
    for named in (SOUND, SOUND.lower(), video.name, str(video), str(skeleton)):
        assert main([named, f"paths.data={data}"]) == 0
        texts.append(capsys.readouterr().out)
    assert len(set(texts)) == 1


def test_files_outside_the_data_folder(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = tmp_path / f"{SOUND}_rgb.avi"
    video.write_bytes((data / "nturgb+d_rgb" / video.name).read_bytes())
    assert main([str(video), f"paths.data={data}"]) == 1
    assert "its other file is not beside it" in capsys.readouterr().out
    skeleton = data / "nturgb+d_skeletons" / f"{SOUND}.skeleton"
    (tmp_path / skeleton.name).write_bytes(skeleton.read_bytes())
    assert main([str(video), f"paths.data={data}"]) == 0


def test_what_is_no_clip_is_said(data: Path) -> None:
    done = amr("inspect", "S001C001P002R001A999", f"paths.data={data}")
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.count("\n") == 1 and "did you mean 'S001C001P002R001A" in done.stderr
    assert "is not named as clips of ntu are" in amr("inspect", "README.md").stderr
    assert "is a folder" in amr("inspect", data).stderr
    for picture in (data / "none" / "x.png", data / "x.words"):
        done = amr("inspect", SOUND, f"paths.data={data}", "--png", picture)
        assert done.returncode == 2 and "cannot be written" in done.stderr


def test_spans() -> None:
    assert spans(np.array([0, 1, 2, 5, 7, 8])) == "0-2, 5, 7-8"
    assert spans(np.arange(0, 40, 2)).endswith("14 and 12 more")
