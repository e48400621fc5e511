"""iMiGUE: micro-gestures cut out of long interviews, 2D OpenPose joints in pixels of the video.

Layout as in linuxsino/iMiGUE: a label file `Label/*.csv` (video_id, label_id, start_frame,
end_frame, class, subject_id), `<video>/<video>_<12 digits>_keypoints.json` a frame, and a video
`<video>.mp4` anywhere. Joints are (x, y, 0) with y down; a budget for them is in pixels. A clip's
name is made of video, subject, label and class: S371C001P001R001A020.
"""

import csv
import json
import re
from pathlib import Path

import numpy as np

from components.errors import UserError
from components.ntu import video
from components.ntu.ids import make_clip_id
from components.ntu.people import People, choose_people
from components.ntu.skeleton import Bodies, Body, Rejected
from components.ntu.video import Frames, VideoInfo
from components.sources.base import Found, Listing, Source, inside
from components.sources.walk import better, walk_files

_VIDEO = re.compile(r"(\d{1,3})\.(?:mp4|avi|mkv|webm|mov)", re.IGNORECASE)
# Whatever looks like ours is accounted for: `371.mp4.part` is half a download.
_OURS = re.compile(r"\.(?:json|mp4|avi|mkv|webm|mov)(?:\.\w+)?$", re.IGNORECASE)
_FRAME = re.compile(r"(\d{1,3})_(\d{12})_keypoints\.json")
_COLUMNS = ("video_id", "label_id", "start_frame", "end_frame", "class", "subject_id")
# Kinect v2's joint -> OpenPose BODY_25 (0-24), left hand (25-45), right hand (46-66).
_FROM_OPENPOSE = [8, 8, 1, 0, 5, 6, 7, 34, 2, 3, 4, 55, 12, 13, 14, 19, 9, 10, 11, 22, 1]
_FROM_OPENPOSE += [37, 29, 58, 50]  # tips of the middle fingers, tips of the thumbs
_SPINE_MID, _MID_HIP, _NECK = 1, 8, 1
_MIN_JOINTS = 6  # people sit behind desks: legs are rarely seen
_KEYS = (
    ("pose_keypoints_2d", 25),
    ("hand_left_keypoints_2d", 21),
    ("hand_right_keypoints_2d", 21),
)


def find(root: Path) -> Listing:
    """Clips from the label files; a video or a folder of joints may be missing."""
    videos: dict[int, str] = {}
    joints: dict[int, str] = {}
    labels = []
    strangers = []
    for path, name in walk_files(root):
        if name.lower().endswith(".csv"):
            labels.append(path)
        elif match := _VIDEO.fullmatch(name):
            number = int(match[1])
            videos[number] = better(root, videos.get(number, path), path)
        elif match := _FRAME.fullmatch(name):
            joints.setdefault(int(match[1]), path.rpartition("/")[0])
        elif not name or _OURS.search(name):
            strangers.append(path)
    clips = {}
    for path in labels:
        rows = _rows(inside(root, path))
        if rows is None:
            strangers.append(path)
            continue
        for line, row in enumerate(rows, 2):
            found = _found(row, f"{path}, line {line}", videos, joints)
            clips[found.clip] = found
    return Listing([clips[clip] for clip in sorted(clips)], strangers)


def _rows(path: Path) -> list[dict[str, str]] | None:
    """The rows of a label file; None for another table, a broken link or another encoding."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            return list(rows) if set(_COLUMNS) <= set(rows.fieldnames or ()) else None
    except (UnicodeDecodeError, OSError):
        return None


def _found(
    row: dict[str, str], where: str, videos: dict[int, str], joints: dict[int, str]
) -> Found:
    try:
        number, label, first, last, action, subject = (int(row[c]) for c in _COLUMNS)
        clip = make_clip_id(number, 1, subject, label, action)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {error}; expected whole numbers in {_COLUMNS}") from error
    if not 0 <= first <= last:
        raise UserError(f"{where}: frames {first} to {last} are no span")
    return Found(clip, videos.get(number, ""), joints.get(number, ""), first, last)


def people(root: Path, found: Found) -> People:
    """The person with the largest body in each frame of the span."""
    width, height = video.picture_size(str(inside(root, found.video)))
    folder = inside(root, found.skeleton)
    frames, rows = [], []
    for number in range(found.first, found.last + 1):
        path = folder / f"{folder.name}_{number:012d}_keypoints.json"
        points = _largest(path) if path.is_file() else None
        if points is not None:
            frames.append(number - found.first)
            rows.append(points)
    total = found.last - found.first + 1
    if not rows:
        raise Rejected("no-body", f"no joints in frames {found.first} to {found.last}")
    raw = np.stack(rows)  # (n, 67, 2)
    joints = np.zeros((len(rows), 25, 3), np.float32)
    joints[..., :2] = raw[:, _FROM_OPENPOSE]
    both = (raw[:, _MID_HIP] != 0).any(1) & (raw[:, _NECK] != 0).any(1)
    middle = (raw[:, _MID_HIP] + raw[:, _NECK]) / 2
    joints[:, _SPINE_MID, :2] = np.where(both[:, None], middle, 0)
    pixels = np.where(joints[..., :2] == 0, np.nan, joints[..., :2] / (width, height))
    body = Body(1, np.array(frames, np.int32), joints, pixels.astype("f4"))
    return choose_people(Bodies(total, [body]), min_joints=_MIN_JOINTS)


def _largest(path: Path) -> np.ndarray | None:
    """float [67, 2] of the person whose body covers most of the picture, 0 where unseen."""
    try:
        persons = json.loads(path.read_bytes())["people"]
        bodies = [
            np.concatenate([np.array(p[k], float).reshape(n, 3)[:, :2] for k, n in _KEYS])
            for p in persons
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise Rejected("skeleton-malformed", f"{path.name}: {error}") from error
    return max(bodies, key=_area) if bodies else None


def _area(points: np.ndarray) -> float:
    seen = points[:25][(points[:25] != 0).any(axis=1)]
    return float(np.ptp(seen, axis=0).prod()) if len(seen) else 0.0


def probe(root: Path, found: Found) -> VideoInfo:
    """The span's frames and the video's size."""
    width, height = video.picture_size(str(inside(root, found.video)))
    return VideoInfo(found.last - found.first + 1, width, height)


def frames(root: Path, found: Found, threads: int) -> Frames:
    """The decoded frames of the clip's span of the video."""
    path = str(inside(root, found.video))
    return video.decode_span(path, found.first, found.last, threads)


def files(root: Path, found: Found) -> list[Path]:
    """The joints of the span; the long video is left to its size and time of change."""
    folder = inside(root, found.skeleton)
    spans = range(found.first, found.last + 1)
    paths = (folder / f"{folder.name}_{n:012d}_keypoints.json" for n in spans)
    return [path for path in paths if path.is_file()]


_EXAMPLE = "Label/labels.csv, 371.mp4 and 371/371_000000000000_keypoints.json"
SOURCE = Source("imigue", "pixels", _EXAMPLE, find, people, probe, frames, files=files)
