"""UTD-MHAD in its official layout: `a1_s1_t1_skeleton.mat` with colour video or depth as twin.

Source: C. Chen, R. Jafari, N. Kehtarnavaz, ICIP 2015. Skeletons are Kinect v1 (20 joints, metres,
`d_skel` 20 x 3 x frames) and are mapped to the 25 joints of v2. Colour is `_color.avi`; when the
tree has none, depth (`_depth.mat`, `d_depth` 240 x 320 x frames, millimetres) is shown as grey.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import numpy as np
from scipy.io import loadmat

from components.ntu import video
from components.ntu.ids import make_clip_id
from components.ntu.people import People, choose_people
from components.ntu.skeleton import Bodies, Body, Rejected
from components.ntu.video import Frames, VideoInfo
from components.sources.base import Found, Listing, Source, inside
from components.sources.walk import better, walk_files

_NAME = re.compile(
    r"a(\d{1,3})_s(\d{1,3})_t(\d{1,3})_(skeleton|depth|color)\.(?:mat|avi)", re.IGNORECASE
)
_NAMED = re.compile(r"a\d{1,3}_s\d{1,3}_t\d{1,3}_(?:skeleton|depth|color)")
# Kinect v2's joint -> Kinect v1's; the neck is put between, tips and thumbs repeat the hand.
_FROM_V1 = [3, 2, 1, 0, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 1, 7, 7, 11, 11]
_NECK = 2
_FOCAL, _WIDTH, _HEIGHT = 285.63, 320, 240  # Kinect v1's depth camera, in pixels
_NEAR, _FAR = 1000, 4000  # millimetres shown as 255 and as 1
_CLASSES = (
    *("swipe left", "swipe right", "wave", "clap", "throw", "cross arms", "basketball shot"),
    *("draw x", "draw circle clockwise", "draw circle counter-clockwise", "draw triangle"),
    *("bowling", "boxing", "baseball swing", "tennis swing", "arm curl", "tennis serve"),
    *("two-hand push", "knock", "catch", "pick up and throw", "jog", "walk", "sit to stand"),
    *("stand to sit", "lunge", "squat"),
)


def find(root: Path, *, depth: bool = False) -> Listing:
    """Clips by name; colour for all of them when the tree has any, unless `depth` is asked for."""
    files: dict[str, dict[tuple[int, int, int], str]] = {"skeleton": {}, "depth": {}, "color": {}}
    strangers = []
    for path, name in walk_files(root):
        match = _NAME.fullmatch(name)
        if match and 0 not in (key := tuple(map(int, match.groups()[:3]))):
            own, clip = files[match[4].lower()], (key[0], key[1], key[2])
            used = better(root, own.get(clip, path), path)
            if clip in own:
                strangers.append(path if used == own[clip] else own[clip])  # the copy left out
            own[clip] = used
        elif not name or _is_stray(name.lower()):
            strangers.append(path)
    videos = files["depth"] if depth or not files["color"] else files["color"]
    clips = [
        Found(
            make_clip_id(1, 1, key[1], key[2], key[0]),
            videos.get(key, ""),
            files["skeleton"].get(key, ""),
        )
        for key in files["skeleton"].keys() | videos.keys()
    ]
    return Listing(sorted(clips, key=lambda found: found.clip), strangers)


def _is_stray(name: str) -> bool:
    if name.endswith("_inertial.mat"):
        return False
    # Whatever bears a clip's name is accounted for: `..._color.avi.part` is half a download.
    return name.endswith((".mat", ".avi")) or _NAMED.match(name) is not None


def people(root: Path, found: Found) -> People:
    """The one person of a clip, with pixels by the depth camera's nominal lens."""
    old = _load(root, found.skeleton, "d_skel", "skeleton-malformed").astype(float)
    if old.ndim == 2:
        old = old[:, :, None]  # MATLAB drops the last axis of a single frame
    if old.ndim != 3 or old.shape[:2] != (20, 3) or not old.shape[2]:
        raise Rejected("skeleton-malformed", f"d_skel has shape {old.shape}, not 20 x 3 x frames")
    joints = old.transpose(2, 0, 1)[:, _FROM_V1]  # (frames, 25, 3)
    joints[:, _NECK] = (2 * old[1] + old[0]).T / 3
    with np.errstate(divide="ignore", invalid="ignore"):
        flat = joints[..., :2] / joints[..., 2:] * (_FOCAL, -_FOCAL)
    pixels = flat / (_WIDTH, _HEIGHT) + 0.5
    frames = np.arange(len(joints), dtype=np.int32)
    body = Body(1, frames, joints.astype("f4"), pixels.astype("f4"))
    return choose_people(Bodies(len(joints), [body]))


def probe(root: Path, found: Found) -> VideoInfo:
    """Frames and size of the colour video or the depth array."""
    if found.video.lower().endswith(".avi"):
        return video.probe(str(inside(root, found.video)))
    depth = _depth(root, found)
    return VideoInfo(depth.shape[2], depth.shape[1], depth.shape[0])


def frames(root: Path, found: Found, threads: int) -> Frames:
    """Colour frames, or depth as grey: 0 stays 0, else 255 at 1 m falling to 1 at 4 m."""
    if found.video.lower().endswith(".avi"):
        return video.decode(str(inside(root, found.video)), threads)
    return _grey_frames(_depth(root, found))


def _grey_frames(depth: np.ndarray) -> Iterator[av.VideoFrame]:
    for step in range(depth.shape[2]):
        yield av.VideoFrame.from_ndarray(grey(depth[:, :, step]), format="gray")


def grey(depth: np.ndarray) -> np.ndarray:
    """Depth in millimetres as uint8, near is bright and 0 is no reading."""
    share = (depth.astype(float) - _NEAR) / (_FAR - _NEAR)
    shown = np.clip(np.rint(255 - share * 254), 1, 255)
    return np.where(depth > 0, shown, 0).astype(np.uint8)


def _depth(root: Path, found: Found) -> np.ndarray:
    depth = _load(root, found.video, "d_depth", "video-unreadable")
    if depth.ndim == 2:
        depth = depth[:, :, None]
    if depth.ndim != 3 or not depth.size or depth.dtype.kind not in "uif":
        raise Rejected("video-unreadable", f"d_depth has shape {depth.shape}, not h x w x frames")
    return depth


def _load(root: Path, name: str, key: str, reason: str) -> np.ndarray:
    try:
        return np.asarray(loadmat(inside(root, name), variable_names=[key])[key])
    except OSError:
        raise
    except Exception as error:  # scipy raises many kinds on damaged files
        raise Rejected(reason, f"{type(error).__name__}: {error}"[:200]) from error


_EXAMPLE = "a1_s1_t1_skeleton.mat and a1_s1_t1_color.avi (or a1_s1_t1_depth.mat)"


def class_name(action: int) -> str:
    """The name of an action as the data set's page lists them, or "A123" beyond the 27."""
    return _CLASSES[action - 1] if 1 <= action <= len(_CLASSES) else f"A{action:03d}"


SOURCE = Source(
    *("utd_mhad", "metres", _EXAMPLE, find, people, probe, frames),
    same_clock=False,
    class_name=class_name,
)
DEPTH_SOURCE = replace(SOURCE, name="utd_mhad_depth", find=partial(find, depth=True))
