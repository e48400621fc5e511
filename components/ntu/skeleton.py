"""`.skeleton` text to bodies over true frame numbers: the first look at a clip's joints.

Format: shahroudy/NTURGB-D, Matlab/read_skeleton_file.m. Read token by token, so line ends (CRLF,
LF), trailing blanks and empty lines do not matter.
"""

from dataclasses import dataclass, field

import numpy as np

from components.ntu.joints import JOINTS

BODY_FIELDS = 10
JOINT_FIELDS = 12
MAX_FRAMES = 100_000
MAX_BODIES = 64
REACH = 50.0  # metres; Kinect v2 sees 8, so more is no measurement
COLOR_SIZE = (1920.0, 1080.0)
_COLUMNS = (0, 1, 2, 5, 6, 11)  # x y z colorX colorY trackingState


class Rejected(ValueError):
    """A clip that cannot be used. `reason` is a code that the index counts."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["Rejected"], tuple[str, str]]:
        return type(self), (self.reason, self.detail)


@dataclass
class Body:
    """One tracked body.

    frames: int32 [n], true frame numbers, rising; joints: float32 [n, 25, 3] in the source's unit;
    pixels: float32 [n, 25, 2], share of the picture's width and height, NaN where unknown.
    """

    id: int
    frames: np.ndarray
    joints: np.ndarray
    pixels: np.ndarray


@dataclass
class Bodies:
    """All bodies of a clip in the order of first sight, before anything is chosen or repaired."""

    num_frames: int
    bodies: list[Body]
    flags: set[str] = field(default_factory=set)


def parse_skeleton(data: bytes) -> Bodies:
    """The bodies in the bytes of a `.skeleton` file.

    Non-finite numbers stay as NaN. Raises Rejected: skeleton-empty, skeleton-truncated (fewer
    frames than line 1 promises) or skeleton-malformed (anything else that is no skeleton text).
    """
    tokens = data.split()
    if not tokens:
        raise Rejected("skeleton-empty", "the file has no text")
    frames = _count(tokens, 0, MAX_FRAMES, "frame count")
    if frames == 0:
        raise Rejected("skeleton-empty", "line 1 promises 0 frames")
    found: dict[int, tuple[list[int], list[np.ndarray]]] = {}
    flags: set[str] = set()
    at = 1
    for frame in range(frames):
        bodies = _count(tokens, at, MAX_BODIES, f"body count of frame {frame}")
        at += 1
        for _ in range(bodies):
            body = _integer(tokens, at, f"bodyID in frame {frame}")
            joints = _count(tokens, at + BODY_FIELDS, 1000, f"joint count in frame {frame}")
            if joints != JOINTS:
                raise Rejected("skeleton-malformed", f"{joints} joints in frame {frame}, not 25")
            at += BODY_FIELDS + 1
            values = _numbers(tokens[at : at + JOINTS * JOINT_FIELDS], frame)
            at += JOINTS * JOINT_FIELDS
            seen, rows = found.setdefault(body, ([], []))
            if seen and seen[-1] == frame:
                flags.add("body-twice-in-frame")
                continue
            seen.append(frame)
            rows.append(values)
    if at < len(tokens):
        flags.add("text-after-last-frame")
    return Bodies(frames, [_body(i, *parts) for i, parts in found.items()], flags)


def _body(body: int, frames: list[int], rows: list[np.ndarray]) -> Body:
    values = np.stack(rows)  # (n, 25, 6)
    joints = values[..., :3]
    joints[np.abs(joints) > REACH] = np.nan
    pixels = values[..., 3:5] / np.array(COLOR_SIZE)
    return Body(body, np.array(frames, np.int32), joints.astype("f4"), pixels.astype("f4"))


def _numbers(tokens: list[bytes], frame: int) -> np.ndarray:
    if len(tokens) < JOINTS * JOINT_FIELDS:
        raise Rejected("skeleton-truncated", f"the text ends within frame {frame}")
    columns = [tokens[c::JOINT_FIELDS] for c in _COLUMNS]
    try:
        values = np.array([[float(t) for t in column] for column in columns])
    except ValueError as error:
        raise Rejected("skeleton-malformed", f"frame {frame}: {error}") from error
    values[~np.isfinite(values)] = np.nan
    return values.T


def _count(tokens: list[bytes], at: int, most: int, what: str) -> int:
    value = _integer(tokens, at, what)
    if not 0 <= value <= most:
        raise Rejected("skeleton-malformed", f"{what} is {value}, expected 0 to {most}")
    return value


def _integer(tokens: list[bytes], at: int, what: str) -> int:
    # bodyIDs exceed 2**53, so they never pass through a float.
    if at >= len(tokens):
        raise Rejected("skeleton-truncated", f"the text ends before the {what}")
    token = tokens[at]
    if len(token) > 20:
        raise Rejected("skeleton-malformed", f"{what} is {token[:20]!r}..., expected an integer")
    try:
        return int(token)
    except ValueError as error:
        raise Rejected("skeleton-malformed", f"{what} is {token!r}, not an integer") from error
