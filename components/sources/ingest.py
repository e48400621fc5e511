"""One clip, from its raw files to what a shard or a manifest keeps of it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.ntu.crop import Box, people_box, whole_box
from components.ntu.people import People
from components.ntu.reduced import keep_reduced
from components.ntu.skeleton import Rejected, check_unit
from components.ntu.video import VideoInfo, keep_frames
from components.sources.base import Found, Source, inside
from components.sources.limit import require_plain, within

FPS = 30.0  # Kinect v2's rate; only ratios of rates matter when streams are aligned
COUNT_TOLERANCE = 5  # frames by which the streams of one recording may differ in length
COUNT_SHARE = 0.1


@dataclass(frozen=True)
class Look:
    """What the index notes of one clip. `reason` is "" for a clip that is accepted."""

    found: Found
    reason: str = ""
    detail: str = ""
    rgb_frames: int = 0
    skeleton_frames: int = 0
    width: int = 0
    height: int = 0
    bodies: int = 0
    ghosts: int = 0
    persons: int = 0
    flags: tuple[str, ...] = ()
    digest: str = ""


@dataclass(frozen=True)
class Kept:
    """What a shard keeps of one clip: arrays as components.shards.schema describes them."""

    found: Found
    rgb: np.ndarray
    rgb_index: np.ndarray
    rgb_frames: int
    rgb_fps: float
    skeleton_fps: float
    box: Box
    picture: tuple[int, int]
    people: People
    flags: tuple[str, ...]


def look(source: Source, root: Path, found: Found, seconds: float = 0.0) -> Look:
    """Open both files: parse every skeleton frame, walk all packets, decode the first picture.

    A clip that takes longer than `seconds` is rejected; 0 = no limit.
    """
    lacking = missing_twin(found)
    if lacking is not None:
        return lacking
    flags = set(found.flags)

    def read() -> tuple[People, VideoInfo, str]:
        _require_plain(root, found)
        people = _people(source, root, found)
        info = _whole(source.probe(root, found), source, len(people.present))
        if source.digest is not None:
            return people, info, source.digest(root, found)
        return people, info, _digest(source.files(root, found))

    try:
        people, info, digest = within(seconds, read)
    except Rejected as error:
        return Look(found, error.reason, error.detail, flags=found.flags)
    except OSError as error:
        return Look(found, "file-unreadable", str(error.strerror or error), flags=found.flags)
    flags |= people.flags
    if not same_count(info.frames, len(people.present)):
        flags.add("frame-counts-differ")
    return Look(
        found,
        rgb_frames=info.frames,
        skeleton_frames=len(people.present),
        width=info.width,
        height=info.height,
        bodies=people.bodies,
        ghosts=people.ghosts,
        persons=people.persons,
        flags=tuple(sorted(flags)),
        digest=digest,
    )


def missing_twin(found: Found) -> Look | None:
    """The rejection of a clip that lacks one of its files, else None."""
    if not found.video:
        return Look(found, "no-video", "there is a skeleton but no video", flags=found.flags)
    if not found.skeleton:
        return Look(found, "no-skeleton", "there is a video but no skeleton", flags=found.flags)
    return None


def keep(
    source: Source,
    root: Path,
    found: Found,
    *,
    frames: int,
    size: int,
    margin: float,
    expected: int = 0,
    threads: int = 1,
    seconds: float = 0.0,
    decode: str = "exact",
) -> Kept:
    """Read one clip for a shard, in at most `seconds` (0 = no limit).

    decode: "exact", or "fast" for a reduced picture where the file and the box allow it.
    Raises Rejected with the reason.
    """
    fast = decode == "fast"
    return within(
        seconds, lambda: _keep(source, root, found, frames, size, margin, expected, threads, fast)
    )


def _keep(
    source: Source,
    root: Path,
    found: Found,
    frames: int,
    size: int,
    margin: float,
    expected: int,
    threads: int,
    fast: bool,
) -> Kept:
    try:
        _require_plain(root, found)
        people = _people(source, root, found)
        expected = expected or _whole(source.probe(root, found), source, len(people.present)).frames
        flags = set(people.flags) | set(found.flags)

        def box(width: int, height: int) -> Box:
            chosen = people_box(people.pixels, people.present, width, height, margin)
            if chosen is None:
                flags.add("whole-frame")
            return chosen or whole_box(width, height)

        kept = None
        if fast and source.whole_file is not None:
            path = str(source.whole_file(root, found))
            kept = keep_reduced(path, expected, frames, box, size, threads)
            if kept is not None:
                flags.add("reduced-decoding")
        rgb, index, place, picture, count = kept or keep_frames(
            lambda: source.frames(root, found, threads), expected, frames, box, size
        )
    except OSError as error:
        raise Rejected("file-unreadable", str(error.strerror or error)) from error
    if _too_few(count, expected, source):
        raise Rejected(
            "video-truncated", f"{expected} frames are promised, {count} of them can be decoded"
        )
    steps = len(people.present)
    aligned = source.same_clock and same_count(count, steps)
    if not same_count(count, steps):
        flags.add("frame-counts-differ")
    return Kept(
        found,
        rgb,
        index,
        count,
        FPS if aligned else FPS * count / steps,
        FPS,
        place,
        picture,
        people,
        tuple(sorted(flags)),
    )


def _people(source: Source, root: Path, found: Found) -> People:
    people = source.people(root, found)
    if source.unit == "metres":
        check_unit(people.joints[people.present])
    return people


def _whole(info: VideoInfo, source: Source, steps: int) -> VideoInfo:
    """The same, for a video whose frame i was taken at i / rate; Rejected otherwise.

    With frames missing nobody knows which, so pictures would be filed under times of others.
    steps: frames of the skeleton; where there are as many, frame i belongs to frame i
    """
    if _too_few(info.frames, info.promised, source):
        raise Rejected(
            "video-truncated",
            f"the header promises {info.promised} frames, {info.frames} are there",
        )
    paired = source.same_clock and same_count(info.frames, steps)
    if not paired and _too_few(info.frames, info.places, source):
        raise Rejected(
            "video-uneven",
            f"{info.frames} frames in the time of {info.places}: some are missing in between, or "
            "the rate changes; write the video anew at one rate",
        )
    return info


def _too_few(frames: int, expected: int, source: Source) -> bool:
    """Whether so many frames are lost that the others' times are wrong.

    Frames lost at the end change no time where both streams have one clock. Where they only cover
    the same span (`Source.same_clock`), each lost frame stretches the times of all others.
    """
    if source.same_clock:
        return frames < expected and not same_count(frames, expected)
    return frames < expected - 1


def _require_plain(root: Path, found: Found) -> None:
    for name in (found.video, found.skeleton):
        require_plain(inside(root, name))


def same_count(rgb: int, skeleton: int) -> bool:
    """Whether frame i of one stream can be taken as frame i of the other."""
    return abs(rgb - skeleton) <= max(COUNT_TOLERANCE, COUNT_SHARE * max(rgb, skeleton))


def _digest(files: list[Path]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
