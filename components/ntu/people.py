"""From tracked bodies to the two actors of a clip, each in its place in time.

The rules are those of the field (CTR-GCN and SGN, data/ntu/get_raw_denoised_data.py; the idea is
in the FAQ of shahroudy/NTURGB-D). With more than one body:
1. bodies seen in 11 frames or fewer are dropped;
2. a body whose x-spread exceeds 0.8 of its y-spread in at least 69.754 % of its frames is
   furniture and is dropped; the last body is never dropped;
3. the rest is ordered by motion, the summed variance of x, y, z (of the upright frames when that
   is less); the first is the main actor, and later bodies fill gaps of slot 1, then of slot 2.
Two deviations, both so that nothing moves in time or disappears: frames are keyed by their true
number, so gaps and empty frames stay where they are, and a rule that would drop every body keeps
the one that was seen longest.
"""

from dataclasses import dataclass, field

import numpy as np

from components.ntu.joints import JOINTS, PEOPLE
from components.ntu.skeleton import Bodies, Body, Rejected

MIN_FRAMES = 11
SPREAD_RATIO = 0.8
SPREAD_SHARE = 0.69754
MIN_JOINTS = 13  # more than half of a body must be valid for it to count as seen


@dataclass
class People:
    """The actors of one clip over all its F frames.

    joints float32 [F, 2, 25, 3], 0 where absent; present bool [F, 2];
    pixels float32 [F, 2, 25, 2], share of the picture, NaN where absent or unknown.
    """

    joints: np.ndarray
    present: np.ndarray
    pixels: np.ndarray
    bodies: int
    ghosts: int
    flags: set[str] = field(default_factory=set)

    @property
    def persons(self) -> int:
        """How many of the two slots are ever filled."""
        return int(self.present.any(axis=0).sum())


def choose_people(found: Bodies, *, upright: bool = True, min_joints: int = MIN_JOINTS) -> People:
    """The two actors by the rules above; `upright=False` leaves out rule 2 (seated subjects).

    A body counts as seen in a frame where at least `min_joints` of its joints are valid.

    Raises Rejected (no-body) when no frame has a usable body.
    """
    flags = set(found.flags)
    bodies = [
        b for b in (_repair(body, flags, min_joints) for body in found.bodies) if b is not None
    ]
    if not bodies:
        raise Rejected("no-body", f"no usable body in any of {found.num_frames} frames")
    kept = _drop_short(bodies)
    motions = {id(b): _motion(b.joints) for b in kept}
    if upright:
        kept = _drop_wide(kept, motions)
    kept.sort(key=lambda b: -motions[id(b)])
    ghosts = len(bodies) - len(kept)
    if ghosts:
        flags.add("ghost-removed")
    people = _place(kept, found.num_frames, flags)
    people.bodies, people.ghosts, people.flags = len(found.bodies), ghosts, flags
    if not people.present[0].any():
        flags.add("empty-start")
    if not people.present.any(axis=1).all():
        flags.add("frames-without-body")
    return people


def _repair(body: Body, flags: set[str], min_joints: int) -> Body | None:
    """Drop frames where most joints are invalid; elsewhere hold the joint's nearest valid place."""
    valid = np.isfinite(body.joints).all(axis=2) & (body.joints != 0).any(axis=2)  # (n, 25)
    seen = valid.sum(axis=1) >= min_joints
    if not seen.all():
        flags.add("invalid-frames")
    if not seen.any():
        return None
    frames, joints, valid = body.frames[seen], body.joints[seen].copy(), valid[seen]
    if not valid.all():
        flags.add("joints-repaired")
        for joint in np.flatnonzero(~valid.all(axis=0)):
            good = np.flatnonzero(valid[:, joint])
            bad = np.flatnonzero(~valid[:, joint])
            if len(good):
                nearest = np.abs(frames[bad, None] - frames[good][None]).argmin(axis=1)
                joints[bad, joint] = joints[good[nearest], joint]
            else:  # never seen: the middle of what was seen, so that the body stays in its place
                middle = np.nanmean(np.where(valid[..., None], joints, np.nan), axis=1)
                joints[:, joint] = middle
    return Body(body.id, frames, joints, body.pixels[seen])


def _drop_short(bodies: list[Body]) -> list[Body]:
    if len(bodies) == 1:
        return bodies
    long = [b for b in bodies if len(b.frames) > MIN_FRAMES]
    return long or [max(bodies, key=lambda b: len(b.frames))]


def _drop_wide(bodies: list[Body], motions: dict[int, float]) -> list[Body]:
    kept = list(bodies)
    for body in bodies:
        if len(kept) == 1:
            break
        fine = upright_frames(body.joints)
        if fine.all():
            continue
        if (~fine).mean() >= SPREAD_SHARE:
            kept = [b for b in kept if b is not body]
        else:
            motions[id(body)] = min(motions[id(body)], _motion(body.joints[fine]))
    return kept


def upright_frames(joints: np.ndarray) -> np.ndarray:
    """Bool [n]: frames of joints [n, 25, 3] whose shape is a person's by rule 2."""
    spread = joints.max(axis=1) - joints.min(axis=1)
    return spread[:, 0] <= SPREAD_RATIO * spread[:, 1]


def _motion(joints: np.ndarray) -> float:
    return float(joints.reshape(-1, 3).astype("f8").var(axis=0).sum())


def _place(bodies: list[Body], num_frames: int, flags: set[str]) -> People:
    joints = np.zeros((num_frames, PEOPLE, JOINTS, 3), np.float32)
    pixels = np.full((num_frames, PEOPLE, JOINTS, 2), np.nan, np.float32)
    present = np.zeros((num_frames, PEOPLE), bool)
    for body in bodies:
        free = [s for s in range(PEOPLE) if not present[body.frames, s].any()]
        if not free:
            flags.add("third-body-left-out")
            continue
        slot = free[0]
        if present[:, slot].any():
            flags.add("body-joined")
        joints[body.frames, slot] = body.joints
        pixels[body.frames, slot] = body.pixels
        present[body.frames, slot] = True
    return People(joints, present, pixels, bodies=0, ghosts=0)
