"""Joints as Azure Kinect's Body Tracking SDK exports them, in the project's 25 joints and axes.

The SDK gives 32 joints in millimetres with x to the right and y down; here they are metres with y
up, as Kinect v2's are: x and y change sign (half a turn about z, so left stays left). Files already
in metres are taken as such: the camera sees nothing nearer than 0.25 m or farther than 6 m.

| here (Kinect v2) | Azure Kinect |
|---|---|
| SpineBase, SpineMid, SpineShoulder | PELVIS, SPINE_NAVEL, SPINE_CHEST |
| Neck, Head | NECK, HEAD |
| Shoulder, Elbow, Wrist, Hand, HandTip, Thumb | SHOULDER, ELBOW, WRIST, HAND, HANDTIP, THUMB |
| Hip, Knee, Ankle, Foot | HIP, KNEE, ANKLE, FOOT |

CLAVICLE_LEFT and _RIGHT, NOSE, EYEs and EARs have no place among the 25.
"""

import json

import numpy as np

from components.ntu.joints import JOINTS
from components.ntu.skeleton import Bodies, Body, Rejected
from components.ntu.video import MAX_FRAMES

AZURE_JOINTS = 32
# Kinect v2's joint -> k4abt_joint_id_t of the Body Tracking SDK.
FROM_AZURE = [
    *(0, 1, 3, 26),  # SpineBase, SpineMid, Neck, Head
    *(5, 6, 7, 8, 12, 13, 14, 15),  # arms, left and right
    *(18, 19, 20, 21, 22, 23, 24, 25),  # legs, left and right
    *(2, 9, 10, 16, 17),  # SpineShoulder, hand tips and thumbs
]
_MILLIMETRES = 50.0  # a body farther off than this is given in millimetres
_MALFORMED = "skeleton-malformed"


def read_json(data: bytes) -> Bodies:
    """The bodies in a file of `offline_processor` of Microsoft's Azure-Kinect-Samples.

    Rejected (skeleton-malformed) for anything else, skeleton-empty without a frame.
    """
    try:
        body = json.loads(data)
        frames = body["frames"]
        found = [
            (int(person["body_id"]), number, np.array(person["joint_positions"], np.float64))
            for number, frame in enumerate(frames)
            for person in frame["bodies"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        told = f"{type(error).__name__}: {error}"[:150]
        raise Rejected(
            _MALFORMED, f"no `frames` with `bodies` of `body_id` and `joint_positions` ({told})"
        ) from error
    for _, number, joints in found:
        if joints.shape != (AZURE_JOINTS, 3):
            raise Rejected(
                _MALFORMED, f"frame {number}: joints of shape {joints.shape}, not 32 x 3"
            )
    return _bodies(found, len(frames))


def read_csv(data: bytes) -> Bodies:
    """The bodies in a table with a row for each frame: its time, then x, y, z of 32 joints a body.

    A first row without numbers is taken for a header. A body counts as absent in a frame where
    all of its numbers are 0, empty or NaN. Rejected as in `read_json`.
    """
    try:
        rows = [row.split(",") for row in data.decode("utf-8-sig").splitlines() if row.strip()]
    except UnicodeDecodeError as error:
        raise Rejected(_MALFORMED, f"the table is no UTF-8 text: {error}") from error
    if rows and not _is_number(rows[0][-1]):
        rows = rows[1:]
    if not rows:
        raise Rejected("skeleton-empty", "the table has no frame")
    width = 3 * AZURE_JOINTS
    persons, over = divmod(len(rows[0]) - 1, width)
    if over or not persons:
        raise Rejected(
            _MALFORMED,
            f"{len(rows[0])} columns; expected the time and 96 for each body (97, 193, ...)",
        )
    found = []
    for number, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise Rejected(_MALFORMED, f"row {number} has {len(row)} columns, not {len(rows[0])}")
        try:
            numbers = np.array([float(cell or "nan") for cell in row[1:]])
        except ValueError as error:
            raise Rejected(_MALFORMED, f"row {number}: {error}") from error
        for person, joints in enumerate(numbers.reshape(persons, AZURE_JOINTS, 3), 1):
            if np.nan_to_num(joints).any():
                found.append((person, number, joints))
    return _bodies(found, len(rows))


def _bodies(found: list[tuple[int, int, np.ndarray]], frames: int) -> Bodies:
    """Bodies out of (id, frame, joints [32, 3] of the SDK)."""
    if not frames:
        raise Rejected("skeleton-empty", "there is no frame")
    if frames > MAX_FRAMES:
        raise Rejected(_MALFORMED, f"{frames} frames, more than {MAX_FRAMES}")
    by_id: dict[int, dict[int, np.ndarray]] = {}
    flags = set()
    for identity, frame, joints in found:
        if frame in by_id.setdefault(identity, {}):
            flags.add("body-twice-in-frame")
        by_id[identity].setdefault(frame, joints)
    scale = _scale([joints for _, _, joints in found])
    bodies = []
    for identity, seen in by_id.items():
        joints = np.stack(list(seen.values()))[:, FROM_AZURE] * scale
        joints[..., :2] *= -1
        unknown = np.full((len(seen), JOINTS, 2), np.nan, np.float32)
        numbers = np.array(list(seen), np.int32)
        bodies.append(Body(identity, numbers, joints.astype(np.float32), unknown))
    return Bodies(frames, bodies, flags)


def _scale(joints: list[np.ndarray]) -> float:
    if not joints:
        return 1.0
    distances = np.linalg.norm(np.stack(joints), axis=-1)
    seen = distances[np.isfinite(distances) & (distances > 0)]
    return 0.001 if len(seen) and float(np.median(seen)) > _MILLIMETRES else 1.0


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True
