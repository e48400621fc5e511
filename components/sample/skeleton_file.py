"""Writes a recording as an NTU `.skeleton` file, every field included."""

from collections.abc import Sequence

import numpy as np

from components.sample.body import LEAVES, PARENT, Floats
from components.sample.camera import COLOUR_SIZE, colour_pixels, depth_pixels
from components.sample.recording import Track

_JOINT = " ".join(["%.7g"] * 11) + " %d"


def skeleton_text(tracks: Sequence[Track], visible: np.ndarray, newline: str = "\r\n") -> str:
    """The text of a file in which person m is listed in frame t where visible[t, m]."""
    values = [joint_values(track) for track in tracks]
    lines = [str(len(visible))]
    for t, seen in enumerate(visible):
        people = [m for m in range(len(tracks)) if seen[m]]
        lines.append(str(len(people)))
        for m in people:
            lines.append(_header(tracks[m], t))
            lines.append("25")
            lines += [_JOINT % tuple(row) for row in values[m][t]]
    return newline.join(lines) + newline


def joint_values(track: Track) -> Floats:
    """The twelve values of each joint line: [T, 25, 12]."""
    seen = track.seen
    return np.concatenate(
        [seen, depth_pixels(seen), colour_pixels(seen), quaternions(seen), track.state[..., None]],
        -1,
    )


def quaternions(joints: Floats) -> Floats:
    """Orientation W X Y Z [T, 25, 4] that turns the y axis into the bone; zeros at the leaves."""
    parents = np.where(np.array(PARENT) < 0, 0, PARENT)
    bone = joints - joints[:, parents]
    bone[:, 0] = joints[:, 1] - joints[:, 0]
    length = np.linalg.norm(bone, axis=-1, keepdims=True)
    unit = bone / np.maximum(length, 1e-9)
    # Half-way rotation from y = (0, 1, 0): w = 1 + y.b, xyz = y x b; a bone straight down has no
    # axis of its own and turns about x.
    w = 1.0 + unit[..., 1]
    quaternion = np.stack([w, unit[..., 2], np.zeros_like(w), -unit[..., 0]], -1)
    quaternion[w < 1e-6] = (0.0, 1.0, 0.0, 0.0)
    quaternion /= np.linalg.norm(quaternion, axis=-1, keepdims=True)
    quaternion[:, list(LEAVES)] = 0.0
    return quaternion


def _header(track: Track, t: int) -> str:
    x, y = np.moveaxis(colour_pixels(track.seen[t]), -1, 0)
    edges = (x.max() > COLOUR_SIZE[0]) + 2 * (x.min() < 0) + 4 * (y.min() < 0)
    edges += 8 * (y.max() > COLOUR_SIZE[1])
    left, right = (int(track.state[t, joint] == 2) for joint in (7, 11))
    # Hand states: 0 unknown, 2 open; a hand that is only inferred has no state.
    return (
        f"{track.body_id} {int(edges)} {left} {2 * left} {right} {2 * right} 0 "
        f"{track.lean[t, 0]:.7g} {track.lean[t, 1]:.7g} 2"
    )
