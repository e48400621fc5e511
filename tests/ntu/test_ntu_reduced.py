"""Reduced-size decoding: the frames of the full one, nearly the same pixels, else a refusal."""

from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks._ntu_files import write_video
from components.ntu.crop import Box
from components.ntu.reduced import MAX_LOWRES, MIN_REDUCED, keep_reduced, lowres_for
from components.ntu.video import decode, evenly_spaced, keep_frames, probe

SIZE = 16


@pytest.fixture(scope="module")
def ntu_like(tmp_path_factory: pytest.TempPathFactory) -> str:
    """30 frames of 640x480, a key frame every 12."""
    path = tmp_path_factory.mktemp("reduced") / "v.avi"
    write_video(path, 30, 640, 480)
    return str(path)


def encoded(path: Path, codec: str = "mpeg4", b_frames: int = 0, levels: int = 30) -> str:
    """A video of 192x192 whose frame i is a flat grey of 40 + 6 i."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = 192, 192, "yuv420p"
        stream.codec_context.gop_size = 12
        stream.codec_context.max_b_frames = b_frames
        stream.codec_context.qmin = stream.codec_context.qmax = 2
        for i in range(levels):
            picture = np.full((192, 192, 3), 40 + 6 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.mean((one.astype(float) - other) ** 2), 1e-9)))


@pytest.mark.parametrize(
    "box", [Box(100, 40, 400), Box(101, 43, 333), Box(-80, -90, 500), Box(300, 200, 420)]
)
def test_crops_are_those_of_the_full_decode(ntu_like: str, box: Box) -> None:
    exact = keep_frames(lambda: decode(ntu_like), 30, 16, lambda w, h: box, SIZE)
    fast = keep_reduced(ntu_like, 30, 16, lambda w, h: box, SIZE, 1)
    assert fast is not None
    assert fast[0].shape == exact[0].shape and (fast[1] == exact[1]).all()
    assert fast[2:] == exact[2:]
    assert psnr(exact[0], fast[0]) >= 38
    assert ((exact[0] == 0).all(-1) == (fast[0] == 0).all(-1)).mean() > 0.99  # black outside


def test_a_box_outside_the_picture_is_black(ntu_like: str) -> None:
    fast = keep_reduced(ntu_like, 30, 4, lambda w, h: Box(5000, 0, 400), SIZE, 1)
    assert fast is not None and not fast[0].any()


@pytest.mark.parametrize("suffix", ["avi", "mp4", "mkv"])
@pytest.mark.parametrize("keep", [1, 2, 5, 30, 40])
def test_kept_frames_are_those_numbered(tmp_path: Path, suffix: str, keep: int) -> None:
    path = encoded(tmp_path / f"v.{suffix}")
    fast = keep_reduced(path, 30, keep, lambda w, h: Box(0, 0, 192), SIZE, 1)
    assert fast is not None
    seen = [round((float(p.mean()) - 40) / 6) for p in fast[0]]
    assert seen == evenly_spaced(30, keep).tolist() == fast[1].tolist()
    assert fast[3:] == ((192, 192), 30)


def test_a_wrong_promise_is_read_again(tmp_path: Path) -> None:
    path = encoded(tmp_path / "v.avi")
    for promised in (3, 29, 75):
        fast = keep_reduced(path, promised, 6, lambda w, h: Box(0, 0, 192), SIZE, 1)
        assert fast is not None and fast[4] == 30
        assert fast[1].tolist() == evenly_spaced(30, 6).tolist()


def test_threads_do_not_change_a_byte(ntu_like: str) -> None:
    one, two = (
        keep_reduced(ntu_like, 30, 8, lambda w, h: Box(100, 40, 400), SIZE, n) for n in (1, 2)
    )
    assert one is not None and two is not None and (one[0] == two[0]).all()


@pytest.mark.parametrize(
    ("suffix", "codec", "b_frames"),
    [("avi", "mpeg4", 2), ("mp4", "mpeg4", 2), ("mp4", "libx264", 0)],
)
def test_other_files_are_left_to_the_full_decode(
    tmp_path: Path, suffix: str, codec: str, b_frames: int
) -> None:
    path = encoded(tmp_path / f"v.{suffix}", codec, b_frames)
    assert probe(path).frames == 30
    assert keep_reduced(path, 30, 4, lambda w, h: Box(0, 0, 192), SIZE, 1) is None


def test_a_small_box_is_left_to_the_full_decode(tmp_path: Path) -> None:
    path = encoded(tmp_path / "v.avi")
    assert keep_reduced(path, 30, 4, lambda w, h: Box(0, 0, 79), SIZE, 1) is None
    assert keep_reduced(path, 30, 4, lambda w, h: Box(0, 0, 80), SIZE, 1) is not None


def test_a_hole_in_the_file_is_left_to_the_full_decode(tmp_path: Path) -> None:
    path = Path(encoded(tmp_path / "v.avi"))
    data = bytearray(path.read_bytes())
    starts = [i for i in range(len(data)) if data[i : i + 4] == b"\0\0\1\xb6"]
    for start in starts[12:15]:
        data[start : start + 4] = b"\0\0\0\0"
    path.write_bytes(data)
    assert keep_reduced(str(path), 30, 4, lambda w, h: Box(0, 0, 192), SIZE, 1) is None


@pytest.mark.parametrize("size", [16, 64, 112])
def test_how_often_a_picture_is_halved(size: int) -> None:
    assert lowres_for(int(MIN_REDUCED * size * 2) - 1, size) == 0
    assert lowres_for(int(MIN_REDUCED * size * 2), size) == 1
    assert lowres_for(int(MIN_REDUCED * size * 4), size) == 2
    assert lowres_for(10**6, size) == MAX_LOWRES
