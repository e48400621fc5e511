"""`.skeleton` text to bodies over true frame numbers: the first look at a clip's joints.

Format: shahroudy/NTURGB-D, Matlab/read_skeleton_file.m. Read token by token, so line ends (CRLF,
LF), trailing blanks and empty lines do not matter.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.errors import UserError
from components.ntu.joints import JOINTS

BODY_FIELDS = 10
JOINT_FIELDS = 12
MAX_FRAMES = 100_000
MAX_BODIES = 64
MAX_BYTES = 256 << 20
REACH = 50.0  # metres; Kinect v2 sees 8, so more is no measurement
MILLIMETRES = 1000
COLOR_SIZE = (1920.0, 1080.0)


class Rejected(UserError):
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
    seen: dict[int, list[tuple[int, int]]] = {}  # bodyID -> (frame, row of the joint values)
    joint_tokens: list[bytes] = []
    flags: set[str] = set()
    at, row = 1, 0
    for frame in range(frames):
        bodies = _count(tokens, at, MAX_BODIES, f"body count of frame {frame}")
        at += 1
        for _ in range(bodies):
            body = _integer(tokens, at, f"bodyID in frame {frame}")
            joints = _count(tokens, at + BODY_FIELDS, 1000, f"joint count in frame {frame}")
            if joints != JOINTS:
                raise Rejected("skeleton-malformed", f"{joints} joints in frame {frame}, not 25")
            at += BODY_FIELDS + 1
            values = tokens[at : at + JOINTS * JOINT_FIELDS]
            if len(values) < JOINTS * JOINT_FIELDS:
                raise Rejected("skeleton-truncated", f"the text ends within frame {frame}")
            at += len(values)
            joint_tokens += values
            places = seen.setdefault(body, [])
            if places and places[-1][0] == frame:
                flags.add("body-twice-in-frame")
            else:
                places.append((frame, row))
            row += 1
    if at < len(tokens):
        flags.add("text-after-last-frame")
    values_all = _numbers(joint_tokens)
    check_unit(values_all[..., :3])
    return Bodies(frames, [_body(i, p, values_all) for i, p in seen.items()], flags)


def check_unit(joints: np.ndarray) -> None:
    """Rejected (skeleton-unit) when most joints [..., 3] lie farther off than any sensor sees."""
    reach = np.abs(joints).max(axis=-1)
    known = reach[np.isfinite(reach) & (reach > 0)]
    if known.size and np.median(known) > REACH:
        raise Rejected(
            "skeleton-unit",
            f"joints lie {np.median(known):.4g} from the camera, expected metres; if these are "
            f"millimetres, divide by {MILLIMETRES}",
        )


def read_skeleton(path: Path) -> Bodies:
    """The bodies in a `.skeleton` file; raises Rejected as `parse_skeleton` does."""
    if path.stat().st_size > MAX_BYTES:
        raise Rejected("skeleton-malformed", f"more than {MAX_BYTES} bytes")
    return parse_skeleton(path.read_bytes())


def _body(body: int, places: list[tuple[int, int]], values: np.ndarray) -> Body:
    frames, rows = np.array(places).T
    own = values[rows]  # (n, 25, 12)
    joints = own[..., :3]
    joints[np.abs(joints) > REACH] = np.nan
    pixels = own[..., 5:7] / COLOR_SIZE
    return Body(body, frames.astype(np.int32), joints.astype("f4"), pixels.astype("f4"))


def _numbers(tokens: list[bytes]) -> np.ndarray:
    # A clip has some 25,000 of them; Arrow reads them in a quarter of Python's time. What it does
    # not take ("+1.5", "Infinity") goes the slow way.
    try:
        text = pa.array(tokens, pa.string())
        values = pc.cast(text, pa.float64()).to_numpy(zero_copy_only=False).copy()
    except (pa.ArrowInvalid, UnicodeDecodeError):
        try:
            values = np.fromiter(map(_number, tokens), np.float64, len(tokens))
        except ValueError as error:
            raise Rejected("skeleton-malformed", f"a joint has no number: {error}") from error
    values[~np.isfinite(values)] = np.nan
    return values.reshape(-1, JOINTS, JOINT_FIELDS)


def _number(token: bytes) -> float:
    # Microsoft's C runtime before 2015 writes NaN and infinity as 1.#QNAN, -1.#IND, 1.#INF.
    return float("nan") if b".#" in token else float(token)


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
