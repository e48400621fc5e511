"""NTU-RGB+D 60 and 120 as published: `*_rgb.avi` and `*.skeleton`, in any folders."""

import re
from pathlib import Path

from components.ntu import video
from components.ntu.classes import class_name
from components.ntu.ids import ClipId
from components.ntu.people import People, choose_people
from components.ntu.skeleton import read_skeleton
from components.ntu.video import Frames, VideoInfo
from components.sources.base import Found, Listing, Source, inside
from components.sources.walk import better, walk_files

_VIDEO = re.compile(
    r"(S\d{3}C\d{3}P\d{3}R\d{3}A\d{3})(?:_rgb)?\.(?:avi|mp4|mkv|webm|mov)", re.IGNORECASE
)
_SKELETON = re.compile(r"(S\d{3}C\d{3}P\d{3}R\d{3}A\d{3})\.skeleton", re.IGNORECASE)
_NAMED = re.compile(r"S\d{3}C\d{3}P\d{3}R\d{3}A\d{3}", re.IGNORECASE)
_OURS = (".skeleton", ".avi", ".mp4", ".mkv", ".webm", ".mov")


def find(root: Path) -> Listing:
    """Clips by name, sorted; a clip seen twice keeps its larger file and is flagged."""
    videos: dict[ClipId, str] = {}
    skeletons: dict[ClipId, str] = {}
    twice: dict[ClipId, set[str]] = {}
    strangers = []
    for path, name in walk_files(root):
        for pattern, files, flag in (
            (_VIDEO, videos, "duplicate-video"),
            (_SKELETON, skeletons, "duplicate-skeleton"),
        ):
            match = pattern.fullmatch(name)
            if match and "000" not in re.findall(r"\d{3}", match[1]):
                clip = ClipId.parse(match[1].upper())
                if clip in files:
                    twice.setdefault(clip, set()).add(flag)
                files[clip] = better(root, files.get(clip, path), path)
                break
        else:
            # Whatever bears a clip's name is accounted for: `..._rgb.avi.part` is half a download.
            if not name or name.lower().endswith(_OURS) or _NAMED.search(name):
                strangers.append(path)
    clips = [
        Found(
            clip,
            videos.get(clip, ""),
            skeletons.get(clip, ""),
            flags=tuple(sorted(twice.get(clip, ()))),
        )
        for clip in sorted(videos.keys() | skeletons.keys())
    ]
    return Listing(clips, strangers)


def people(root: Path, found: Found) -> People:
    """The actors in the clip's `.skeleton` file."""
    return choose_people(read_skeleton(inside(root, found.skeleton)))


def probe(root: Path, found: Found) -> VideoInfo:
    """Frames and size of the clip's video file."""
    return video.probe(str(inside(root, found.video)))


def frames(root: Path, found: Found, threads: int) -> Frames:
    """The decoded frames of the clip's video file."""
    return video.decode(str(inside(root, found.video)), threads)


SOURCE = Source(
    "ntu",
    "metres",
    "S001C001P001R001A001.skeleton and S001C001P001R001A001_rgb.avi",
    find,
    people,
    probe,
    frames,
    class_name=class_name,
    whole_file=lambda root, found: inside(root, found.video),
)
