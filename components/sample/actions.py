"""How each class moves: hand, foot and trunk paths over time, different in every performance.

Wrist targets are written for an arm of 0.54 m in trunk axes (right, up, forward) from between the
shoulders and scaled to the actor's own arm. Twin classes either move alike and hold different
objects, or look alike from the front and differ by decimetres in depth.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from components.sample.body import Body, Floats, Pose

ARM = 0.54


@dataclass
class Held:
    """An object that one hand (or both, between the palms) holds."""

    kind: str
    side: int
    both: bool = False


@dataclass
class Acting:
    """What the people of one performance do; one pose each, the main actor first."""

    poses: list[Pose]
    held: list[Held] = field(default_factory=list)


@dataclass
class Take:
    """One performance: its actors' bodies, its random state, its time axis."""

    bodies: list[Body]
    rng: np.random.Generator
    frames: int
    yaw: float

    @property
    def seconds(self) -> Floats:
        """Time of each frame at 30 frames a second, [T]."""
        return np.arange(self.frames) / 30.0

    def point(self, x: float, y: float, z: float, spread: float = 0.03) -> Floats:
        """A target scattered around (x, y, z)."""
        return np.array([x, y, z]) + self.rng.normal(0, spread, 3)

    def wobble(self, size: float, components: int = 3) -> Floats:
        """Slow random movement [T] of about `size`."""
        frequency = self.rng.uniform(0.2, 1.1, components)
        phase = self.rng.uniform(0, 2 * np.pi, components)
        waves = np.sin(2 * np.pi * self.seconds[:, None] * frequency + phase)
        return waves @ self.rng.normal(0, size / np.sqrt(components), components)

    def swing(self, low: float, high: float) -> Floats:
        """A sine [T] of unit size with a frequency of low..high Hz."""
        phase = self.rng.uniform(0, 2 * np.pi)
        return np.sin(2 * np.pi * self.rng.uniform(low, high) * self.seconds + phase)


def path(take: Take, *keys: tuple[float, Floats]) -> Floats:
    """[T, 3] through (moment in [0, 1], point) keys, eased, with the moments scattered."""
    moments = np.array([m for m, _ in keys]) + take.rng.normal(0, 0.03, len(keys))
    moments = np.maximum.accumulate(moments) + 1e-3 * np.arange(len(keys))
    points = np.stack([p for _, p in keys])
    t = np.linspace(0, 1, take.frames)
    slot = np.clip(np.searchsorted(moments, t, side="right") - 1, 0, len(keys) - 2)
    share = np.clip((t - moments[slot]) / (moments[slot + 1] - moments[slot]), 0, 1)
    share = share * share * (3 - 2 * share)
    return points[slot] + share[:, None] * (points[slot + 1] - points[slot])


def idle(take: Take, who: int = 0) -> Pose:
    """Standing with arms down: sway, a stance, small movements of the head."""
    body, rng = take.bodies[who], take.rng
    zero = np.zeros(take.frames)
    root = np.stack([take.wobble(0.012), zero, take.wobble(0.012)], -1)
    stance = rng.uniform(0.7, 1.8)
    foot = {
        s: np.tile([s * body.hip * stance, 0.0, rng.normal(0, 0.05)], (take.frames, 1))
        for s in (-1, 1)
    }
    wrist = {s: mirrored(take.point(0.25, -0.5, 0.06, 0.04), s) + zero[:, None] for s in (-1, 1)}
    return Pose(
        root=root,
        yaw=take.yaw + take.wobble(0.04),
        pitch=rng.normal(0.05, 0.05) + take.wobble(0.02),
        roll=rng.normal(0, 0.03) + take.wobble(0.015),
        wrist=wrist,
        foot=foot,
        nod=rng.normal(0.1, 0.1) + take.wobble(0.06),
        shake=rng.normal(0, 0.1) + take.wobble(0.08),
    )


def mirrored(point: Floats, side: int) -> Floats:
    """A point given for the right hand, for the hand of `side`."""
    return point * np.array([side, 1.0, 1.0])


def main_hand(take: Take) -> int:
    """1 for the right hand, which most people use; -1 for the left."""
    return 1 if take.rng.random() < 0.9 else -1


def to_head(kind: str) -> Callable[[Take], Acting]:
    """One hand goes to the mouth or the ear and stays; only what it holds tells the class."""

    def act(take: Take) -> Acting:
        side, pose = main_hand(take), idle(take)
        low, high = take.point(0.22, -0.42, 0.1, 0.05), take.point(0.11, 0.16, 0.16, 0.03)
        begin, end = take.rng.uniform(0.0, 0.2), take.rng.uniform(0.8, 1.0)
        track = path(take, (begin, low), (begin + 0.2, high), (end, high), (end + 0.2, low))
        lifted = np.clip((track[:, 1] - low[1]) / (high[1] - low[1]), 0, 1)
        pose.wrist[side] = mirrored(track, side)
        pose.palm[side] = mirrored(np.array([-0.7, 0.5, 0.0]), side) * lifted[:, None]
        pose.nod = pose.nod - lifted * take.rng.uniform(-0.1, 0.25)
        return Acting([pose], [Held(kind, side)])

    return act


def in_front(kind: str) -> Callable[[Take], Acting]:
    """Both hands hold something before the chest; only what they hold tells the class."""

    def act(take: Take) -> Acting:
        pose, side = idle(take), main_hand(take)
        centre = take.point(0.0, -0.24, 0.3, 0.03)
        for s in (-1, 1):
            half = mirrored(take.point(0.13, 0.0, 0.0, 0.02), s)
            pose.wrist[s] = path(take, (0.0, centre + half), (1.0, centre + half))
            pose.palm[s] = np.tile([-0.5 * s, 0.3, 0.4], (take.frames, 1))
        # A page is turned, a word written, a screen stroked: one hand makes small moves.
        busy = np.clip(take.swing(0.4, 1.2), 0, 1)[:, None]
        pose.wrist[side] = pose.wrist[side] + busy * take.point(0, 0, 0, 0.03)
        pose.nod = pose.nod + take.rng.uniform(0.2, 0.5)
        return Acting([pose], [Held(kind, side, both=True)])

    return act


def hands_together(ahead: float, size: float) -> Callable[[Take], Acting]:
    """Both palms meet `ahead` metres before the chest and move apart by up to `size`."""

    def act(take: Take) -> Acting:
        pose = idle(take)
        centre = take.point(0.0, -0.16, ahead, 0.03)
        apart, wave = take.rng.uniform(0.5, 1.0) * size, take.swing(1.6, 3.2)
        drift = np.stack([take.wobble(0.012) for _ in range(3)], -1)
        for s in (-1, 1):
            track = np.tile(centre + mirrored(take.point(0.045, 0, 0, 0.008), s), (take.frames, 1))
            track[:, 0] += s * apart * (1 + wave) / 2
            pose.wrist[s] = track + drift
            pose.palm[s] = np.tile([-0.5 * s, 0.5, 0.5], (take.frames, 1))
        return Acting([pose])

    return act


def throw(take: Take) -> Acting:
    """The raised arm goes far back, then fast forward and down."""
    side, pose = main_hand(take), idle(take)
    rest = take.point(0.22, -0.45, 0.1, 0.04)
    back, front = take.point(0.26, 0.06, -0.25, 0.04), take.point(0.14, 0.0, 0.5, 0.04)
    begin = take.rng.uniform(0.0, 0.15)
    wind, fly = begin + 0.2, take.rng.uniform(0.55, 0.7)
    keys = (begin, rest), (wind, back), (fly, back), (fly + 0.1, front), (fly + 0.35, rest)
    pose.wrist[side] = mirrored(path(take, *keys), side)
    return Acting([pose])


def point_at(take: Take) -> Acting:
    """The arm is raised forward and held; from the front only its depth differs from a throw."""
    side, pose = main_hand(take), idle(take)
    rest, front = take.point(0.22, -0.45, 0.1, 0.04), take.point(0.18, 0.03, 0.5, 0.04)
    begin = take.rng.uniform(0.0, 0.15)
    stay = take.rng.uniform(0.65, 0.8)
    keys = (begin, rest), (begin + 0.2, front), (stay, front), (stay + 0.25, rest)
    pose.wrist[side] = mirrored(path(take, *keys), side)
    return Acting([pose])


def opposite(take: Take, distance: float) -> tuple[Pose, Pose]:
    """Two people face to face, the second `distance` ahead of the first."""
    first, second = idle(take, 0), idle(take, 1)
    ahead = np.array([np.sin(take.yaw), 0.0, -np.cos(take.yaw)]) * distance
    first.root = first.root - ahead / 2
    second.root = second.root + ahead / 2
    second.yaw = second.yaw + np.pi + take.rng.normal(0, 0.1)
    return first, second


def punch(take: Take) -> Acting:
    """The first strikes at the other's head again and again; the other leans far back."""
    distance = take.rng.uniform(0.64, 0.8)
    first, second = opposite(take, distance)
    side = main_hand(take)
    guard = take.point(0.2, -0.1, 0.1, 0.04)
    hit = take.point(0.06, 0.1, distance - 0.1, 0.04)
    begin = take.rng.uniform(0.05, 0.2)
    keys = [(0.0, guard)]
    for blow in range(3):
        keys += [(begin + 0.3 * blow + m, p) for m, p in ((0, guard), (0.1, hit), (0.2, hit))]
    first.wrist[side] = mirrored(path(take, *keys, (1.0, guard)), side)
    struck = path(take, (begin, np.zeros(3)), (begin + 0.2, np.ones(3)), (1.0, np.ones(3)))
    second.pitch = second.pitch - take.rng.uniform(0.25, 0.4) * struck[:, 0]
    return Acting([first, second])


def shake_hands(take: Take) -> Acting:
    """Both right hands meet between the two at the height of the belly and move up and down."""
    distance = take.rng.uniform(0.7, 0.86)
    first, second = opposite(take, distance)
    height = take.rng.uniform(-0.3, -0.2)
    begin, end = take.rng.uniform(0.0, 0.15), take.rng.uniform(0.85, 1.1)
    shake = take.rng.uniform(0.02, 0.05) * take.swing(1.5, 3.0)
    for pose in (first, second):
        rest = take.point(0.22, -0.45, 0.1, 0.04)
        meet = np.array([0.03, height, distance / 2 - 0.04]) + take.rng.normal(0, 0.02, 3)
        track = path(take, (begin, rest), (begin + 0.2, meet), (end, meet), (end + 0.2, rest))
        near = np.clip((track[:, 2] - rest[2]) / (meet[2] - rest[2]), 0, 1)
        track[:, 1] += near * shake
        pose.wrist[1] = mirrored(track, 1)
    return Acting([first, second])


MOTIONS: dict[int, Callable[[Take], Acting]] = {
    1: to_head("cup"),
    3: to_head("brush"),
    7: throw,
    10: hands_together(ahead=0.46, size=0.08),
    11: in_front("book"),
    12: in_front("board"),
    28: to_head("phone"),
    29: in_front("tablet"),
    31: point_at,
    34: hands_together(ahead=0.17, size=0.04),
    50: punch,
    58: shake_hands,
}


def perform(action: int, take: Take, distractors: tuple[str, ...]) -> Acting:
    """The poses of a performance; wrist targets scaled to each actor's own arm.

    Now and then somebody who needs no object holds one, so that an object alone proves nothing.
    """
    acting = MOTIONS[action](take)
    if not acting.held and take.rng.random() < 0.2:
        kind = distractors[take.rng.integers(len(distractors))]
        acting.held.append(Held(kind, -1 if take.rng.random() < 0.7 else 1))
    for body, pose in zip(take.bodies, acting.poses, strict=True):
        scale = (body.upper_arm + body.forearm) / ARM if len(acting.poses) == 1 else 1.0
        pose.wrist = {s: w * scale for s, w in pose.wrist.items()}
        pose.palm = {s: np.broadcast_to(p, (take.frames, 3)) for s, p in pose.palm.items()}
    return acting
