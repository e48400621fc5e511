"""Azure Kinect with exported joints: DUET's folders, or one JSON or CSV beside a video.

Two layouts. DUET (its page on the Hugging Face Hub): folders `<modality>/LLIISS/<time>/` with
frames `*.jpeg` and joints `*.csv`; LL is the place (CM, CC, CL: here the setup), II the interaction
(the action), SS the pair of people (the subject); recordings of one LLIISS are its replications, in
the order of their times. And files named as a clip: `S001C001P001R001A001.json` or `.csv` with
`S001C001P001R001A001.mp4` (or mkv, avi, webm, mov). Joints: components/sources/azure_joints.py.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import av
import numpy as np
from PIL import Image

from components.errors import UserError
from components.ntu import video
from components.ntu.ids import ClipId, make_clip_id
from components.ntu.people import People, choose_people
from components.ntu.skeleton import Rejected
from components.ntu.video import MAX_FRAMES, MAX_PIXELS, Frames, VideoInfo
from components.sources.azure_joints import read_csv, read_json
from components.sources.base import Found, Listing, Source, inside
from components.sources.walk import better, walk_files

_CLIP = re.compile(
    r"(S\d{3}C\d{3}P\d{3}R\d{3}A\d{3})\.(json|csv|mp4|mkv|avi|webm|mov)", re.IGNORECASE
)
_DUET = re.compile(r"(?:.*/)?((CM|CC|CL)(\d\d)(\d\d)/([^/]+))/[^/]+\.(csv|jpe?g)", re.IGNORECASE)
_JOINTS = (".json", ".csv")
_PLACES = {"CM": 1, "CC": 2, "CL": 3}  # indoor open, indoor confined, outdoor
_FRAME = re.compile(r".*\.jpe?g", re.IGNORECASE)


def find(root: Path) -> Listing:
    """Clips of both layouts by name."""
    videos: dict[ClipId, str] = {}
    joints: dict[ClipId, str] = {}
    recordings: dict[str, dict[str, str]] = defaultdict(dict)  # "CM0103/time" -> its files
    strangers = []
    for path, name in walk_files(root):
        if match := _CLIP.fullmatch(name):
            try:
                clip = ClipId.parse(match[1].upper())
            except UserError:  # a part of the name is 000
                strangers.append(path)
                continue
            files = joints if name.lower().endswith(_JOINTS) else videos
            files[clip] = better(root, files.get(clip, path), path)
        elif match := _DUET.fullmatch(path):
            kind = "joints" if match[6].lower() == "csv" else "frames"
            used = path if kind == "joints" else str(PurePosixPath(path).parent)
            recordings[match[1].upper()].setdefault(kind, used)
        elif not name or name.lower().endswith((*_JOINTS, ".mp4", ".mkv", ".avi", ".webm", ".mov")):
            strangers.append(path)
    for clip, parts in _numbered(recordings):
        if "joints" in parts:
            joints[clip] = parts["joints"]
        if "frames" in parts:
            videos[clip] = parts["frames"]
    clips = sorted(videos.keys() | joints.keys())
    return Listing([Found(c, videos.get(c, ""), joints.get(c, "")) for c in clips], strangers)


def _numbered(recordings: dict[str, dict[str, str]]) -> Iterator[tuple[ClipId, dict[str, str]]]:
    """Each recording of DUET's layout with its clip id."""
    count: dict[str, int] = defaultdict(int)
    for name in sorted(recordings):
        code = name.split("/")[0]
        count[code] += 1
        action, subject = int(code[2:4]), int(code[4:6])
        yield (
            make_clip_id(_PLACES[code[:2]], 1, subject, count[code], action),
            recordings[name],
        )


def people(root: Path, found: Found) -> People:
    """The bodies of the joint file; their pixels are unknown, so the whole frame is kept."""
    path = inside(root, found.skeleton)
    read = read_json if found.skeleton.lower().endswith(".json") else read_csv
    return choose_people(read(path.read_bytes()))


def probe(root: Path, found: Found) -> VideoInfo:
    """Frames and size of the clip's video file or folder of frames."""
    path = inside(root, found.video)
    if not path.is_dir():
        return video.probe(str(path))
    pictures = _pictures(path)
    first = _picture(pictures[0])
    return VideoInfo(len(pictures), first.shape[1], first.shape[0])


def frames(root: Path, found: Found, threads: int) -> Frames:
    """The decoded frames of the clip's video file, or its frames in the order of their names."""
    path = inside(root, found.video)
    return _folder_frames(path) if path.is_dir() else video.decode(str(path), threads)


def _folder_frames(folder: Path) -> Iterator[av.VideoFrame]:
    for path in _pictures(folder):
        yield av.VideoFrame.from_ndarray(_picture(path), format="rgb24")


def _pictures(folder: Path) -> list[Path]:
    """The folder's frames; `2.jpeg` comes before `10.jpeg`."""
    found = [path for path in folder.iterdir() if _FRAME.fullmatch(path.name)]
    if not 0 < len(found) <= MAX_FRAMES:
        raise Rejected("video-unreadable", f"{folder.name} has {len(found)} frames")
    return sorted(found, key=lambda p: [int(n) for n in re.findall(r"\d+", p.stem)] or [0])


def _picture(path: Path) -> np.ndarray:
    try:
        with Image.open(path, formats=["JPEG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Rejected("video-unreadable", f"{path.name} is too large")
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise Rejected("video-unreadable", f"{path.name} is no JPEG: {error}"[:200]) from error


def files(root: Path, found: Found) -> list[Path]:
    """The joints, and the video or all frames."""
    path = inside(root, found.video)
    return [inside(root, found.skeleton), *(_pictures(path) if path.is_dir() else [path])]


_EXAMPLE = "CM0103/2023-01-31/*.jpeg and *.csv, or S001C001P001R001A001.json and .mp4"
SOURCE = Source("azure_kinect", "metres", _EXAMPLE, find, people, probe, frames, files=files)
