"""Any folder of videos, with joints that MediaPipe Pose estimated from the same pixels.

`deploy/mediapipe/estimate.py` writes `NAME.pose.npy` beside each video: float32 [F, 33, 5], for
each frame and landmark its place in the picture (x, y as shares) and in the room (x, y, z in metres
about the middle of the hips, x right, y down); NaN where nobody was found. A video is a clip by a
line of `clips.csv` (components/sources/clip_table.py) or by a name like S001C001P001R001A001.

| here (Kinect v2) | MediaPipe Pose |
|---|---|
| SpineBase; SpineShoulder, Neck; SpineMid | middle of hips; of shoulders; of these two |
| Head | nose |
| Shoulder, Elbow, Wrist, HandTip, Thumb | shoulder, elbow, wrist, index, thumb |
| Hand | middle of wrist and index |
| Hip, Knee, Ankle, Foot | hip, knee, ankle, foot index |

Landmarks know nothing of where the body stands, so it is put at a fixed distance.
"""

import io
import re
from pathlib import Path

import numpy as np

from components.errors import UserError
from components.ntu.ids import ClipId
from components.ntu.people import People, choose_people
from components.ntu.skeleton import MAX_FRAMES, Bodies, Body, Rejected
from components.sources import ntu
from components.sources.base import Found, Listing, Source, inside
from components.sources.clip_table import TABLE, read_table
from components.sources.walk import walk_files

LANDMARKS, NUMBERS = 33, 5
DISTANCE = 3.0  # metres from the camera: none is known
_VIDEO = re.compile(r"(.+)\.(?:mp4|avi|mkv|webm|mov)", re.IGNORECASE)
_CLIP = re.compile(r"(S\d{3}C\d{3}P\d{3}R\d{3}A\d{3})(?:_rgb)?", re.IGNORECASE)
_POSE = ".pose.npy"
# Kinect v2's joint -> the landmarks whose middle it is.
FROM_MEDIAPIPE: list[tuple[int, ...]] = [
    *[(23, 24), (11, 12, 23, 24), (11, 12), (0,)],
    *[(11,), (13,), (15,), (15, 19), (12,), (14,), (16,), (16, 20)],
    *[(23,), (25,), (27,), (31,), (24,), (26,), (28,), (32,)],
    *[(11, 12), (19,), (21,), (20,), (22,)],
]
NOTE = (
    "joints were estimated from the same pixels by MediaPipe Pose, frame by frame: whoever changes "
    "the pixels changes them, so a budget for the joints is a convention and no sensor's"
)


def find(root: Path) -> Listing:
    """Videos with a line in a `clips.csv` or a clip's name; others are listed."""
    named: dict[str, ClipId] = {}
    videos, poses = [], set()
    strangers = []
    for path, name in walk_files(root):
        if name == TABLE:
            named |= read_table(root, path)
        elif name.endswith(_POSE):
            poses.add(path)
        elif _VIDEO.fullmatch(name):
            videos.append(path)
        elif not name:
            strangers.append(path)
    found: dict[ClipId, Found] = {}
    for path in sorted(videos):
        stem = _VIDEO.fullmatch(path)[1]  # type: ignore[index]
        match = _CLIP.fullmatch(stem.rpartition("/")[2])
        clip = named.get(path) or (ClipId.parse(match[1].upper()) if match else None)
        if clip is None or clip in found:
            strangers.append(path)
            continue
        pose = stem + _POSE
        found[clip] = Found(clip, path, pose if pose in poses else "")
    if lost := sorted(set(named) - set(videos)):
        raise UserError(f"{TABLE} names {lost[0]}, which is no video under {root}")
    used = {entry.skeleton for entry in found.values()}
    return Listing([found[c] for c in sorted(found)], sorted([*strangers, *(poses - used)]))


def people(root: Path, found: Found) -> People:
    """The one person that the estimator saw."""
    try:
        data = io.BytesIO(inside(root, found.skeleton).read_bytes())
        marks = np.lib.format.read_array(data, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise Rejected("skeleton-malformed", f"no array of numbers: {error}"[:200]) from error
    if marks.ndim != 3 or marks.shape[1:] != (LANDMARKS, NUMBERS) or marks.dtype.kind != "f":
        raise Rejected(
            "skeleton-malformed",
            f"{marks.dtype} {marks.shape}, not float [frames, {LANDMARKS}, {NUMBERS}]",
        )
    if not 0 < len(marks) <= MAX_FRAMES:
        raise Rejected("skeleton-empty", f"{len(marks)} frames")
    seen = np.flatnonzero(np.isfinite(marks).all(axis=(1, 2)))
    points = np.stack([marks[seen][:, list(some)].mean(axis=1) for some in FROM_MEDIAPIPE], 1)
    joints = points[..., 2:] * (-1.0, -1.0, 1.0) + (0.0, 0.0, DISTANCE)  # y up, as Kinect v2
    body = Body(1, seen.astype(np.int32), joints.astype("f4"), points[..., :2].astype("f4"))
    return choose_people(Bodies(len(marks), [body] if len(seen) else []), upright=False)


SOURCE = Source(
    "mediapipe",
    "metres",
    "clips.csv, walk.mp4 and walk.pose.npy (by deploy/mediapipe/estimate.py)",
    find,
    people,
    ntu.probe,
    ntu.frames,
    whole_file=lambda root, found: inside(root, found.video),
    note=NOTE,
)
