"""A close look at one clip: both files each for itself, then as the index and the shards take it.

A clip that is rejected for one file still shows what the other one holds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from components.config import Config
from components.ntu.crop import MARGIN
from components.ntu.people import People
from components.ntu.roster import missing_clips
from components.ntu.skeleton import Rejected
from components.sources import get_source
from components.sources.base import Found, Source, inside
from components.sources.ingest import Kept, keep, look
from components.sources.limit import require_plain, within

Out = TypeVar("Out")


@dataclass(frozen=True)
class Video:
    """What the video holds, every frame decoded.

    promised: frames that the header says, 0 where it says nothing; fps: by the times of the frames,
    0 where they have none
    """

    frames: int
    width: int
    height: int
    promised: int
    fps: float


@dataclass(frozen=True)
class Seen:
    """One clip. Where a file cannot be read, the Rejected that says why stands in its place.

    fault: why the clip would be rejected, None when it would not; kept: what a shard would get
    """

    source: Source
    root: Path
    found: Found
    video: Video | Rejected
    people: People | Rejected
    kept: Kept | None
    fault: Rejected | None
    flags: tuple[str, ...]

    @property
    def unit(self) -> str:
        """Of the joints."""
        return self.source.unit

    @property
    def class_name(self) -> str:
        """Of the clip's action."""
        return self.source.class_name(self.found.clip.action)


def see(root: Path, found: Found, config: Config) -> Seen:
    """Look at one clip with the settings of the index and shard stages."""
    source, seconds = get_source(config.data.source), config.index.clip_seconds
    video: Video | Rejected = Rejected("no-video", "there is a skeleton but no video")
    people: People | Rejected = Rejected("no-skeleton", "there is a video but no skeleton")
    if found.video:
        video = _or_reason(root, found.video, seconds, lambda: _video(source, root, found))
    if found.skeleton:
        people = _or_reason(root, found.skeleton, seconds, lambda: source.people(root, found))
    indexed = look(source, root, found, seconds)
    fault = Rejected(indexed.reason, indexed.detail) if indexed.reason else None
    kept, flags = None, set(indexed.flags)
    if fault is None:
        try:
            kept = _kept(source, root, found, config)
            flags |= set(kept.flags)
        except Rejected as error:
            fault = error
    if fault is None and source.name == "ntu" and not config.data.keep_missing:
        if str(found.clip) in missing_clips():
            fault = Rejected("missing-skeleton", "on the official list (data.keep_missing)")
    return Seen(source, root, found, video, people, kept, fault, tuple(sorted(flags)))


def _kept(source: Source, root: Path, found: Found, config: Config) -> Kept:
    shard = config.shard
    return keep(
        source,
        root,
        found,
        frames=shard.frames,
        size=shard.size,
        margin=MARGIN,
        seconds=config.index.clip_seconds,
    )


def _video(source: Source, root: Path, found: Found) -> Video:
    promised = source.probe(root, found).promised
    times, count, width, height = [], 0, 0, 0
    for frame in source.frames(root, found, 1):
        count, width, height = count + 1, frame.width, frame.height
        if frame.time is not None:
            times.append(frame.time)
    span = max(times) - min(times) if times else 0.0
    return Video(count, width, height, promised, (len(times) - 1) / span if span > 0 else 0.0)


def _or_reason(root: Path, name: str, seconds: float, read: Callable[[], Out]) -> Out | Rejected:
    """What `read()` gives, or why this file cannot be read."""
    try:
        require_plain(inside(root, name))
        return within(seconds, read)
    except Rejected as error:
        return error
    except OSError as error:
        return Rejected("file-unreadable", str(error.strerror or error))
