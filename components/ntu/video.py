"""Video files to the few frames that are kept, cropped and scaled, indexed in decode order.

Presentation times are not monotonic in some real AVI files, so a frame's number is its place in
the decoder's output. Every frame is decoded, only kept ones are converted and scaled.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import av
import numpy as np

from components.ntu.crop import Box
from components.ntu.scaler import Scaler
from components.ntu.skeleton import Rejected

# A file is opened as one of these and read from itself alone: a playlist renamed to .avi must not
# make FFmpeg open other files or the network.
_OPEN = {
    "format_whitelist": "avi,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpeg,mpegts,asf",
    "protocol_whitelist": "file",
}
MAX_PIXELS = 8192 * 8192
MAX_FRAMES = 100_000
MAX_PACKETS = 200_000  # of the video stream; a damaged index can make a demuxer go round for ever

Frames = Iterable[av.VideoFrame]


class VideoInfo(NamedTuple):
    """What a look at the packets tells: frames there, the picture's size, frames promised.

    promised: what the header says; 0 where the container does not say
    places:   frames that there is time for between the first and the last; 0 where packets have
              no times. More than `frames` where some are missing in between, or the rate changes
    """

    frames: int
    width: int
    height: int
    promised: int = 0
    places: int = 0


class _Deadline(threading.local):
    """When this thread's clip must have been read, on the monotonic clock; None = no limit."""

    at: float | None = None


_deadline = _Deadline()


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Videos read by this thread inside the block raise Rejected (too-slow) after `seconds`."""
    _deadline.at = time.monotonic() + seconds
    try:
        yield
    finally:
        _deadline.at = None


def _left() -> float | None:
    """Seconds that are left for this clip; None without a limit. Raises Rejected (too-slow)."""
    if _deadline.at is None:
        return None
    left = _deadline.at - time.monotonic()
    if left <= 0:
        raise Rejected("too-slow", "the video was not read in the time a clip has")
    return left


@contextlib.contextmanager
def open_video(path: str) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    try:
        # The limit also ends a demuxer that reads on and on without giving a packet.
        container = av.open(path, options=_OPEN, metadata_errors="replace", timeout=_left())
    except (av.error.FFmpegError, OSError) as error:
        raise Rejected("video-unreadable", _tell(error)) from error
    with container:
        if not container.streams.video:
            raise Rejected("video-unreadable", "the file has no video stream")
        stream = container.streams.video[0]
        context = stream.codec_context
        if context is None:
            raise Rejected("video-unreadable", "the video's codec is unknown")
        if context.width * context.height > MAX_PIXELS:
            raise Rejected("video-unreadable", f"{context.width}x{context.height} is too large")
        yield container, stream


def decode(path: str, threads: int = 1) -> Iterator[av.VideoFrame]:
    """All frames in decode order. Raises Rejected (video-unreadable) when there is none.

    A fault in the middle of a file ends the frames of its packet alone, as players do.
    """
    with open_video(path) as (container, stream):
        stream.codec_context.thread_count = threads
        stream.codec_context.thread_type = "AUTO" if threads != 1 else "NONE"
        count = 0
        for frame in _frames(container, stream):
            count += 1
            if count > MAX_FRAMES:
                raise Rejected("video-unreadable", f"more than {MAX_FRAMES} frames")
            yield frame
        if count == 0:
            raise Rejected("video-unreadable", "no frame can be decoded")


def probe(path: str) -> VideoInfo:
    """Count the packets without decoding, and decode the first frame for the picture's size."""
    with open_video(path) as (container, stream):
        count, first, end = 0, None, 0
        times = []
        for packet in packets(container, stream):
            if packet.size:
                count += 1
                times.append(packet.dts)
                end = max(end, (packet.pts or 0) + (packet.duration or 0))
            if first is None:
                with contextlib.suppress(av.error.FFmpegError):
                    first = next(iter(packet.decode()), None)
        if first is None:
            raise Rejected("video-unreadable", "no frame can be decoded")
        promised = _promised(stream, container.duration or 0, count, end)
        return VideoInfo(count, first.width, first.height, promised, _places(times))


def _places(times: list[int | None]) -> int:
    """How many frames at even steps lie between the first and the last of these times."""
    known = np.unique([time for time in times if time is not None])
    if len(known) < len(times) or len(times) < 2:
        return 0
    return round(float((known[-1] - known[0]) / np.median(np.diff(known)))) + 1


def _promised(stream: av.VideoStream, duration: int, count: int, end: int) -> int:
    """Frames that the header says; 0 where it says nothing. `end`: when the last packet ends."""
    # MKV and WebM say how long the video is, not how many frames it has.
    if stream.frames > 0 or not duration or not stream.time_base:
        return max(stream.frames, 0)
    span = float((end - (stream.start_time or 0)) * stream.time_base)
    return round(count * duration / av.time_base / span) if span > 0 else 0


def picture_size(path: str) -> tuple[int, int]:
    """(width, height) that the file's header promises, without decoding."""
    with open_video(path) as (_, stream):
        return stream.codec_context.width, stream.codec_context.height


def decode_span(path: str, first: int, last: int, threads: int = 1) -> Iterator[av.VideoFrame]:
    """Frames `first` to `last` (included) of a long video, starting at the key frame before.

    A frame's number is its time on the video's even clock, which holds for MP4, MKV and WebM; an
    AVI is counted from its beginning.
    """
    if path.lower().endswith(".avi"):
        for number, frame in enumerate(decode(path, threads)):
            if number > last:
                return
            if number >= first:
                yield frame
        return
    with open_video(path) as (container, stream):
        rate, base = stream.average_rate or stream.base_rate, stream.time_base
        if not rate or not base:
            raise Rejected("video-unreadable", "the video's frame rate is unknown")
        start = stream.start_time or 0
        try:
            container.seek(start + int(first / rate / base), stream=stream, backward=True)
        except av.error.FFmpegError as error:
            raise Rejected(
                "video-unreadable", f"no way to frame {first}: {_tell(error)}"
            ) from error
        for frame in _frames(container, stream):
            number = round((frame.pts - start) * base * rate) if frame.pts is not None else first
            if number > last:
                return
            if number >= first:
                yield frame


def _frames(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[av.VideoFrame]:
    for packet in packets(container, stream):
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            continue
        yield from frames


def packets(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    demuxed = container.demux(stream)
    for _ in range(MAX_PACKETS):
        _left()
        try:
            packet = next(demuxed)
        except (StopIteration, EOFError):
            return
        except av.error.FFmpegError:
            _left()  # cut short by the clock, not by the file's end
            return  # the rest of the file cannot be read; what came before it stands
        yield packet
    raise Rejected("video-unreadable", f"more than {MAX_PACKETS} packets")


def evenly_spaced(total: int, keep: int) -> np.ndarray:
    """int32 [keep] frame numbers: the middles of `keep` equal parts of `total` frames.

    With fewer frames than asked for, frames repeat.
    """
    return ((np.arange(keep) * 2 + 1) * total // (2 * keep)).astype(np.int32)


def keep_frames(
    open_frames: Callable[[], Frames],
    expected: int,
    keep: int,
    box: Callable[[int, int], Box],
    size: int,
) -> tuple[np.ndarray, np.ndarray, Box, tuple[int, int], int]:
    """Read a video once and keep evenly spaced frames.

    `open_frames` starts the decoding, `expected` is the count that packets promise, `box` gives
    the crop for a picture's width and height. Returns uint8 [keep, size, size, 3], int32 [keep]
    true frame numbers, the box, (width, height) and the true count. When the count proves wrong
    the video is read a second time.
    """
    for _ in range(3):
        wanted = evenly_spaced(expected, keep)
        numbers = set(wanted.tolist())
        pictures: dict[int, np.ndarray] = {}
        scaler: Scaler | None = None
        count = 0
        for frame in open_frames():
            if scaler is None:
                scaler = Scaler(box(frame.width, frame.height), size)
                shape = (frame.width, frame.height)
            if count in numbers:
                pictures[count] = scaler(frame)
            count += 1
        if scaler is None:
            raise Rejected("video-unreadable", "no frame can be decoded")
        if count == expected:
            kept = np.stack([pictures[i] for i in wanted.tolist()])
            return kept, wanted, scaler.box, shape, count
        expected = count
    raise Rejected("video-unreadable", "the number of frames differs at every reading")


def _tell(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
