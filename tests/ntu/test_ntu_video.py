"""Video: frames counted in decode order, one box, only files of their own kind."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks._ntu_files import write_video
from components.ntu.crop import Box, people_box, whole_box
from components.ntu.skeleton import Rejected
from components.ntu.video import (
    Scaler,
    decode,
    decode_span,
    evenly_spaced,
    keep_frames,
    probe,
)


def grey_ramp(
    path: Path, frames: int, codec: str = "mpeg4", b_frames: int = 0, **size: int
) -> None:
    """A video whose frame i is a flat grey of 40 + 6 i, so that a picture tells its number."""
    width, height = size.get("width", 64), size.get("height", 48)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = 12
        stream.codec_context.max_b_frames = b_frames
        stream.codec_context.qmin = stream.codec_context.qmax = 2
        for i in range(frames):
            picture = np.full((height, width, 3), 40 + 6 * i, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def numbers(pictures: np.ndarray) -> list[int]:
    return [round((float(p.mean()) - 40) / 6) for p in pictures]


@pytest.mark.parametrize(("suffix", "codec", "b_frames"), [
    ("avi", "mpeg4", 0), ("avi", "mpeg4", 2), ("mp4", "mpeg4", 2), ("mkv", "mpeg4", 2),
    ("avi", "libx264", 2),
])  # fmt: skip
def test_kept_frames_are_those_numbered(
    tmp_path: Path, suffix: str, codec: str, b_frames: int
) -> None:
    path = tmp_path / f"v.{suffix}"
    grey_ramp(path, 30, codec, b_frames)
    info = probe(str(path))
    assert (info.width, info.height) == (64, 48)
    rgb, index, _, shape, count = keep_frames(
        lambda: decode(str(path)), info.frames, 8, whole_box, 32
    )
    assert (count, shape, rgb.shape) == (30, (64, 48), (8, 32, 32, 3))
    middle = rgb[:, 12:20]  # the whole-frame box leaves black bars above and below
    assert numbers(middle) == index.tolist() == evenly_spaced(30, 8).tolist()


@pytest.mark.parametrize("expected", [5, 29, 31, 200])
def test_a_wrong_promise_of_frames_is_found_out(tmp_path: Path, expected: int) -> None:
    path = tmp_path / "v.avi"
    grey_ramp(path, 30)
    _, index, _, _, count = keep_frames(lambda: decode(str(path)), expected, 8, whole_box, 16)
    assert count == 30 and index.tolist() == evenly_spaced(30, 8).tolist()


def test_fewer_frames_than_kept_repeat(tmp_path: Path) -> None:
    path = tmp_path / "v.avi"
    grey_ramp(path, 3)
    rgb, index, *_ = keep_frames(lambda: decode(str(path)), 3, 8, whole_box, 16)
    assert index.tolist() == [0, 0, 0, 1, 1, 2, 2, 2] and len(rgb) == 8


@pytest.mark.parametrize("suffix", ["avi", "mp4"])
def test_a_span_of_a_long_video_has_exactly_its_frames(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"v.{suffix}"
    grey_ramp(path, 34)
    scale = Scaler(whole_box(64, 48), 32)
    got = numbers(np.stack([scale(f)[12:20] for f in decode_span(str(path), 17, 29)]))
    assert got == list(range(17, 30))


def test_damage_in_the_middle_still_gives_the_other_frames(tmp_path: Path) -> None:
    path = tmp_path / "v.avi"
    write_video(path, 40, 96, 54)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = b"\xa5" * 200
    path.write_bytes(data)
    assert 20 <= sum(1 for _ in decode(str(path))) <= 40


@pytest.mark.parametrize("content", [b"", b"RIFF", b"\x00" * 5000, b"just some text\n" * 50])
def test_what_is_no_video_is_rejected(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "v.avi"
    path.write_bytes(content)
    for read in (lambda: list(decode(str(path))), lambda: probe(str(path))):
        with pytest.raises(Rejected) as caught:
            read()
        assert caught.value.reason == "video-unreadable"


def test_a_playlist_under_the_name_of_a_video_opens_nothing(tmp_path: Path) -> None:
    write_video(tmp_path / "secret.avi", 5, 96, 54)
    lists = {
        "concat.avi": "ffconcat version 1.0\nfile 'secret.avi'\n",
        "hls.avi": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.avi\n#EXT-X-ENDLIST\n",
    }
    for name, content in lists.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(Rejected):
            list(decode(str(tmp_path / name)))


def coloured_frames(width: int, height: int) -> Iterator[av.VideoFrame]:
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, : width // 2] = (200, 30, 30)
    picture[:, width // 2 :] = (30, 30, 200)
    yield av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")


def test_the_box_is_cut_out_and_black_where_there_is_no_picture() -> None:
    (frame,) = coloured_frames(64, 32)
    left = Scaler(Box(0, 0, 32), 16)(frame)
    right = Scaler(Box(32, 0, 32), 16)(frame)
    assert left[8, 8, 0] > 150 > left[8, 8, 2] and right[8, 8, 2] > 150 > right[8, 8, 0]
    beyond = Scaler(Box(48, -16, 64), 32)(frame)
    assert not beyond[:7].any() and not beyond[:, 9:].any() and beyond[12, 4].any()


def test_box_surrounds_the_points_with_its_margin() -> None:
    pixels = np.full((4, 2, 25, 2), np.nan, np.float32)
    present = np.zeros((4, 2), bool)
    pixels[:, 0] = np.linspace((0.4, 0.3), (0.6, 0.7), 25)
    present[:, 0] = True
    pixels[2, 0, 3] = np.nan
    pixels[1, 1] = 0.99  # absent, so it must not count
    box = people_box(pixels, present, 1920, 1080, 0.1)
    assert box is not None
    assert box.side == round(0.4 * 1080 * 1.2)
    assert box.left <= 0.4 * 1920 and box.left + box.side >= 0.6 * 1920
    assert box.top <= 0.3 * 1080 and box.top + box.side >= 0.7 * 1080


@pytest.mark.parametrize("value", [np.nan, 0.0, 5.0, -3.0, 0.5])
def test_unusable_points_give_no_box(value: float) -> None:
    pixels = np.full((4, 2, 25, 2), value, np.float32)
    assert people_box(pixels, np.ones((4, 2), bool), 640, 480, 0.1) is None


def test_a_box_at_the_edge_is_moved_inside() -> None:
    pixels = np.zeros((1, 1, 25, 2), np.float32)
    pixels[0, 0] = np.linspace((0.0, 0.5), (0.1, 0.9), 25)
    box = people_box(pixels, np.ones((1, 1), bool), 640, 480, 0.2)
    assert box is not None and box.left == 0 and box.top + box.side <= 480
