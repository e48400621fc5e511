"""Kept frames of an MPEG-4 Part 2 file, decoded at a half or a quarter of its size.

What `shard.decode=fast` does with NTU's videos. FFmpeg's `lowres` leaves out the higher frequencies
of each block, and a packet that no kept frame builds on is not decoded at all: nothing refers back
beyond a key frame, so of each group only the frames up to the last kept one are needed.
"""

from collections import deque
from collections.abc import Callable

import av
import numpy as np

from components.ntu.crop import Box
from components.ntu.scaler import ReducedScaler
from components.ntu.video import evenly_spaced, open_video, packets

MIN_REDUCED = 2.5  # pixels of the reduced picture for one of the crop, along each side
MAX_LOWRES = 2  # at an eighth the decoder's motion compensation is off by whole decibels
_PICTURE = b"\0\0\1\xb6"  # start code of a coded picture (ISO/IEC 14496-2, vop_start_code)
_HEADERS = 4096  # bytes of a packet in which its picture begins
_INTRA, _PREDICTED = 0, 1  # the two bits behind it

Kept = tuple[np.ndarray, np.ndarray, Box, tuple[int, int], int]


class _Unusual(Exception):
    """The file is not of the plain kind that this module reads."""


def lowres_for(side: int, size: int) -> int:
    """How often the picture may be halved for a crop of `side` pixels scaled to `size`: 0 to 2."""
    lowres = 0
    while lowres < MAX_LOWRES and side >= MIN_REDUCED * size * 2 ** (lowres + 1):
        lowres += 1
    return lowres


def keep_reduced(
    path: str, expected: int, keep: int, box: Callable[[int, int], Box], size: int, threads: int
) -> Kept | None:
    """What `video.keep_frames` gives, from a reduced picture; None when it must decode the file.

    That is every file that is no MPEG-4 Part 2 in yuv420p, has B-frames or pictures without a
    packet of their own, is damaged, or whose box is too small to give up pixels.
    Raises Rejected (video-unreadable, too-slow).
    """
    try:
        for _ in range(2):
            kept = _read(path, expected, keep, box, size, threads)
            if kept is None or kept[4] == expected:
                return kept
            expected = kept[4]
    except (_Unusual, av.error.FFmpegError):
        return None
    return None


def _read(
    path: str, expected: int, keep: int, box: Callable[[int, int], Box], size: int, threads: int
) -> Kept | None:
    with open_video(path) as (container, stream):
        context = stream.codec_context
        if context.name != "mpeg4":
            return None
        width, height = context.width, context.height
        place = box(width, height)
        lowres = lowres_for(place.side, size)
        if not lowres:
            return None
        context.options = {"lowres": str(lowres)}
        context.thread_count = threads
        context.thread_type = "AUTO" if threads != 1 else "NONE"
        wanted = evenly_spaced(expected, keep)
        reader = _Reader(context, set(wanted.tolist()), lowres, (width, height))
        scaler = ReducedScaler(place, size, width, height, lowres)
        planes: dict[int, np.ndarray] = {}
        last = None
        for packet in packets(container, stream):
            for number, frame in reader.take(packet) if packet.size else ():
                planes[number], last = scaler.planes(frame), frame
        for number, frame in reader.finish():
            planes[number], last = scaler.planes(frame), frame
    if last is None:
        return None
    if reader.count != expected:  # another reading, for other frames
        return np.empty(0), wanted, place, (width, height), reader.count
    kept = scaler.to_rgb(np.stack([planes[i] for i in wanted.tolist()]), last)
    return kept, wanted, place, (width, height), reader.count


class _Reader:
    """Hands to the decoder what wanted frames need, and takes those frames from it."""

    def __init__(
        self,
        context: av.VideoCodecContext,
        wanted: set[int],
        lowres: int,
        picture: tuple[int, int],
    ) -> None:
        self.context = context
        self.wanted = wanted
        self.count = 0
        self._shape = tuple(-(-side // 2**lowres) for side in picture)
        self._waiting: list[tuple[int, av.Packet]] = []  # since the last key or wanted frame
        self._inside: deque[int] = deque()  # numbers of the frames that the decoder still has

    def take(self, packet: av.Packet) -> list[tuple[int, av.VideoFrame]]:
        """The wanted frames that are there once this packet is read."""
        number, self.count = self.count, self.count + 1
        if _kind(packet) == _INTRA:
            self._waiting = []
        elif number == 0:
            raise _Unusual("the first picture is no key frame")
        self._waiting.append((number, packet))
        if number not in self.wanted:
            return []
        out = []
        for n, waiting in self._waiting:
            self._inside.append(n)
            out += self._frames(waiting)
        self._waiting = []
        return out

    def finish(self) -> list[tuple[int, av.VideoFrame]]:
        """The wanted frames that the decoder still held."""
        out = self._frames(None)
        if self._inside:
            raise _Unusual("a packet gave no picture")
        return out

    def _frames(self, packet: av.Packet | None) -> list[tuple[int, av.VideoFrame]]:
        out = []
        for frame in self.context.decode(packet):
            if self.context.has_b_frames:  # they refer to frames behind them, and share packets
                raise _Unusual("there are B-frames")
            shape = (frame.width, frame.height)
            if not self._inside or frame.format.name != "yuv420p" or shape != self._shape:
                raise _Unusual("a packet gave several pictures, or one of another form")
            number = self._inside.popleft()
            if number in self.wanted:
                out.append((number, frame))
        return out


def _kind(packet: av.Packet) -> int:
    """The type of the picture in a packet."""
    data = bytes(memoryview(packet)[:_HEADERS])
    at = data.find(_PICTURE) + len(_PICTURE)
    if at < len(_PICTURE) or at >= len(data):
        raise _Unusual("a packet without a picture")
    kind = data[at] >> 6
    if kind not in (_INTRA, _PREDICTED):
        raise _Unusual("pictures of other kinds than I and P")
    return kind
