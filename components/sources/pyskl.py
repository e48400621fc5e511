"""NTU-RGB+D as pyskl and mmaction2 annotate it: one pickle of 3D joints, the videos beside it.

Layout of `ntu60_3danno.pkl`, `ntu120_3danno.pkl` (kennymckormick/pyskl, tools/data/README) and of
mmaction2's `ntu60_3d.pkl`: a dict with `split` and `annotations`, the latter a list of dicts with
`frame_dir` (the clip's name), `label` (from 0), `total_frames` and `keypoint`, float
[M, T, 25, 3] in metres with Kinect v2's joints. A bare list of such dicts is read too. The
file is never unpickled.
"""

import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from components.errors import UserError
from components.ntu.classes import class_name
from components.ntu.ids import ClipId
from components.ntu.joints import JOINTS
from components.ntu.people import People, choose_people
from components.ntu.skeleton import MAX_FRAMES, Bodies, Body, Rejected
from components.sources import ntu
from components.sources.base import Found, Listing, Source, inside
from components.sources.plain_pickle import StoredArray, read_plain
from components.sources.walk import walk_files

_NAME = re.compile(r"S\d{3}C\d{3}P\d{3}R\d{3}A\d{3}", re.IGNORECASE)
_PICKLE = (".pkl", ".pickle")


def find(root: Path) -> Listing:
    """The clips of all annotation files of 3D joints, and the videos of `root` by name.

    UserError for a pickle that holds more than plain data.
    """
    videos = {found.clip: found for found in ntu.find(root).clips if found.video}
    clips: dict[ClipId, Found] = {}
    strangers = []
    for path, name in walk_files(root):
        if not name.lower().endswith(_PICKLE):
            continue
        annotations = _annotations(root / path)
        if annotations is None:
            strangers.append(path)
            continue
        for clip in annotations:
            flags = set(videos[clip].flags if clip in videos else ()) & {"duplicate-video"}
            if clip in clips:  # in two files, as in one of NTU-60 beside one of NTU-120
                flags.add("duplicate-skeleton")
            first = clips[clip].skeleton if clip in clips else path
            video = videos[clip].video if clip in videos else ""
            clips[clip] = Found(clip, video, first, flags=tuple(sorted(flags)))
    for clip, found in videos.items():
        clips.setdefault(clip, Found(clip, found.video, flags=found.flags))
    strangers += [p for p in ntu.find(root).others if not p.lower().endswith(_PICKLE)]
    return Listing([clips[clip] for clip in sorted(clips)], sorted(strangers))


def _annotations(path: Path) -> dict[ClipId, dict[str, Any]] | None:
    """The annotations of a file by clip; None where its joints are not 25 in 3D."""
    state = path.stat()
    return _read(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4)  # a process reads the clips of one shard after the other from one file
def _read(path: Path, size: int, changed: int) -> dict[ClipId, dict[str, Any]] | None:
    body = read_plain(path)
    entries = body.get("annotations") if isinstance(body, dict) else body
    if not isinstance(entries, list) or not entries:
        raise UserError(
            f"{path} holds no list of annotations; expected a file as pyskl's ntu60_3danno.pkl"
        )
    out = {}
    for number, entry in enumerate(entries):
        clip = _clip_of(entry)
        if clip is None:
            raise UserError(
                f"{path}: annotation {number} has no `frame_dir` like S001C001P001R001A001 with a "
                "`keypoint` array"
            )
        if entry["keypoint"].shape[2:] != (JOINTS, 3):
            return None  # 2D joints of HRNet and the like
        out[clip] = entry
    return out


def _clip_of(entry: Any) -> ClipId | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("keypoint"), StoredArray):
        return None
    match = _NAME.search(str(entry.get("frame_dir")))
    return ClipId.parse(match[0].upper()) if match else None


def _entry(root: Path, found: Found) -> dict[str, Any]:
    annotations = _annotations(inside(root, found.skeleton))
    if annotations is None or found.clip not in annotations:
        raise Rejected("skeleton-malformed", f"{found.skeleton} no longer has {found.clip}")
    return annotations[found.clip]


def people(root: Path, found: Found) -> People:
    """The actors of the clip's annotation; a person counts where any joint is not 0."""
    entry = _entry(root, found)
    try:
        keypoint = entry["keypoint"].load()
    except UserError as error:
        raise Rejected("skeleton-malformed", str(error)) from error
    persons, total = keypoint.shape[:2]
    if entry.get("label") != found.clip.action - 1:
        raise Rejected(
            "skeleton-malformed",
            f"label {entry.get('label')} is not that of A{found.clip.action:03d}",
        )
    if not 0 < total <= MAX_FRAMES or entry.get("total_frames", total) != total:
        raise Rejected(
            "skeleton-malformed", f"{total} frames of joints, {entry.get('total_frames')} promised"
        )
    joints = keypoint.astype(np.float32)
    return choose_people(Bodies(total, list(_bodies(joints[:persons]))))


def _bodies(joints: np.ndarray) -> Iterator[Body]:
    for number, person in enumerate(joints, 1):
        seen = np.flatnonzero((person != 0).any(axis=(1, 2))).astype(np.int32)
        unknown = np.full((len(seen), JOINTS, 2), np.nan, np.float32)
        if len(seen):
            yield Body(number, seen, person[seen], unknown)


def digest(root: Path, found: Found) -> str:
    """Of the video's bytes and the clip's own joints: the whole pickle is too much to hash."""
    out = hashlib.blake2b(digest_size=16)
    with inside(root, found.video).open("rb") as file:
        while block := file.read(1 << 20):
            out.update(block)
    entry = _entry(root, found)
    out.update(np.ascontiguousarray(entry["keypoint"].load()).tobytes())
    out.update(repr((entry.get("label"), entry.get("total_frames"))).encode())
    return out.hexdigest()


SOURCE = Source(
    "pyskl",
    "metres",
    "ntu60_3danno.pkl and S001C001P001R001A001_rgb.avi",
    find,
    people,
    ntu.probe,
    ntu.frames,
    class_name=class_name,
    whole_file=ntu.SOURCE.whole_file,
    digest=digest,
)
