"""The kinematic body: proportions of a subject, and 25 Kinect joints from a pose over time.

World axes: x and z on the floor, y up, metres. A pose says where hands and feet go; elbows and
knees follow by two-bone inverse kinematics.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from components.sample.plan import random_state

Floats = NDArray[np.float64]

# Kinect v2 order (Kinect SDK documentation, JointType).
SPINE_BASE, SPINE_MID, NECK, HEAD = 0, 1, 2, 3
SHOULDER = {-1: 4, 1: 8}  # by side: -1 left, 1 right
HIP = {-1: 12, 1: 16}
SPINE_SHOULDER = 20
TIP = {-1: 21, 1: 23}
THUMB = {-1: 22, 1: 24}
# parent of each joint; -1 at the root (NTURGB-D show_skeleton_on_RGB_frames.m, zero-based)
PARENT = (-1, 0, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 1, 7, 7, 11, 11)
LEAVES = (3, 15, 19, 21, 22, 23, 24)


@dataclass(frozen=True)
class Body:
    """Lengths in metres of one subject; `girth` scales the thickness of what is drawn."""

    height: float
    shoulder: float
    hip: float
    upper_arm: float
    forearm: float
    thigh: float
    shank: float
    torso: float
    neck: float
    girth: float

    @property
    def reach(self) -> float:
        """How far a wrist can be from its shoulder."""
        return 0.999 * (self.upper_arm + self.forearm)


def make_body(seed: int, subject: int) -> Body:
    """The proportions of a subject, the same in all clips."""
    rng = random_state(seed, "body", subject)
    height = float(np.clip(rng.normal(1.71, 0.09), 1.48, 1.95))

    def part(share: float) -> float:
        return float(height * share * np.clip(rng.normal(1.0, 0.05), 0.88, 1.12))

    return Body(
        height=height,
        shoulder=part(0.108),
        hip=part(0.048),
        upper_arm=part(0.168),
        forearm=part(0.148),
        thigh=part(0.243),
        shank=part(0.240),
        torso=part(0.285),
        neck=part(0.05),
        girth=float(np.clip(rng.normal(1.0, 0.14), 0.75, 1.4)),
    )


@dataclass
class Pose:
    """One person over T frames.

    root:  [T, 3] offset of the pelvis on the floor plane and up, metres, in world axes
    yaw:   [T] heading; 0 faces the default camera
    pitch, roll: [T] lean of the trunk, radians, forward and to the right
    wrist: by side [T, 3] target in trunk axes (right, up, forward) from between the shoulders
    foot:  by side [T, 3] target in heading axes from the floor below the start of the pelvis
    palm:  by side [T, 3] direction of the hand in trunk axes; zeros = along the forearm
    nod, shake: [T] head angles, radians
    """

    root: Floats
    yaw: Floats
    pitch: Floats
    roll: Floats
    wrist: dict[int, Floats]
    foot: dict[int, Floats]
    nod: Floats
    shake: Floats
    palm: dict[int, Floats] = field(default_factory=dict)


def axes(yaw: Floats, pitch: Floats, roll: Floats) -> Floats:
    """Columns right, up, forward of a leaned body in world axes: [T, 3, 3]."""
    zero = np.zeros_like(yaw)
    right = np.stack([np.cos(yaw), zero, np.sin(yaw)], -1)
    forward = np.stack([np.sin(yaw), zero, -np.cos(yaw)], -1)
    up = np.stack([zero, zero + 1.0, zero], -1)
    cp, sp, cr, sr = (f(a)[:, None] for a in (pitch, roll) for f in (np.cos, np.sin))
    up, forward = up * cp + forward * sp, forward * cp - up * sp
    up, right = up * cr + right * sr, right * cr - up * sr
    return np.stack([right, up, forward], -1)


def two_bones(
    start: Floats, target: Floats, first: float, second: float, pole: Floats
) -> tuple[Floats, Floats]:
    """Middle and end joints [T, 3] of a chain that reaches for `target`, bending towards `pole`."""
    way = target - start
    distance = np.linalg.norm(way, axis=-1, keepdims=True)
    unit = way / np.maximum(distance, 1e-9)
    length = np.clip(distance, abs(first - second) + 1e-3, 0.999 * (first + second))
    side = pole - (pole * unit).sum(-1, keepdims=True) * unit
    side = side / np.maximum(np.linalg.norm(side, axis=-1, keepdims=True), 1e-9)
    cosine = np.clip((first**2 + length**2 - second**2) / (2 * first * length), -1, 1)
    middle = start + first * (cosine * unit + np.sqrt(1 - cosine**2) * side)
    return middle, start + length * unit


def joints_of(body: Body, pose: Pose) -> Floats:
    """World positions [T, 25, 3] of the pose."""
    frames = len(pose.yaw)
    zero = np.zeros(frames)
    trunk = axes(pose.yaw, pose.pitch, pose.roll)
    heading = axes(pose.yaw, zero, zero)
    right, up, forward = (trunk[..., i] for i in range(3))
    out = np.zeros((frames, 25, 3))
    legs = 0.985 * (body.thigh + body.shank) + 0.04 * body.height
    base = pose.root + np.array([0.0, legs, 0.0])
    out[:, SPINE_BASE] = base
    out[:, SPINE_MID] = base + 0.52 * body.torso * up + 0.02 * forward
    chest = base + body.torso * up
    out[:, SPINE_SHOULDER] = chest
    out[:, NECK] = chest + body.neck * up
    look = axes(pose.yaw + pose.shake, pose.pitch + pose.nod, pose.roll)
    out[:, HEAD] = out[:, NECK] + 0.082 * body.height * look[..., 1] + 0.03 * look[..., 2]
    for side in (-1, 1):
        shoulder = chest + side * body.shoulder * right - 0.015 * body.height * up
        goal = chest + np.einsum("tij,tj->ti", trunk, pose.wrist[side])
        pole = side * 0.6 * right - 0.8 * up - 0.5 * forward
        elbow, wrist = two_bones(shoulder, goal, body.upper_arm, body.forearm, pole)
        along = (wrist - elbow) / body.forearm
        if side in pose.palm:
            along = along + np.einsum("tij,tj->ti", trunk, pose.palm[side])
            along = along / np.maximum(np.linalg.norm(along, axis=-1, keepdims=True), 1e-9)
        first = SHOULDER[side]
        out[:, first], out[:, first + 1], out[:, first + 2] = shoulder, elbow, wrist
        out[:, first + 3] = wrist + 0.045 * body.height * along
        out[:, TIP[side]] = wrist + 0.09 * body.height * along
        inward = -side * right + 0.6 * up
        out[:, THUMB[side]] = wrist + 0.03 * body.height * along + 0.03 * inward
        hip = base + side * body.hip * right - 0.02 * up
        foot = pose.foot[side]
        ground = pose.root[:1] * np.array([1.0, 0.0, 1.0])
        ankle_goal = ground + np.einsum("tij,tj->ti", heading, foot)
        ankle_goal[:, 1] += 0.04 * body.height
        knee, ankle = two_bones(hip, ankle_goal, body.thigh, body.shank, heading[..., 2])
        first = HIP[side]
        out[:, first], out[:, first + 1], out[:, first + 2] = hip, knee, ankle
        out[:, first + 3] = ankle + 0.07 * body.height * heading[..., 2] - np.array([0, 0.04, 0])
    return out
