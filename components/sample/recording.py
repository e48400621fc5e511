"""One clip before it is written: true joints for the renderer, and what a Kinect makes of them."""

from dataclasses import dataclass

import numpy as np

from components.ntu.ids import ClipId
from components.sample.actions import Acting, Held, Take, perform
from components.sample.body import (
    HEAD,
    LEAVES,
    PARENT,
    SPINE_MID,
    Body,
    Floats,
    joints_of,
    make_body,
)
from components.sample.camera import Camera, place_camera
from components.sample.plan import (
    DISTRACTORS,
    TWO_PERSON,
    Style,
    partners,
    performance_of,
    random_state,
)

TRACKED, INFERRED = 2, 1
FIRST_BODY_ID = 72057594037927936  # 2**56; real ids start near here, beyond what a float holds


@dataclass
class Track:
    """One person as the sensor reports it. `true` and `seen` are camera space [T, 25, 3]."""

    subject: int
    body: Body
    body_id: int
    true: Floats
    seen: Floats
    state: np.ndarray  # int [T, 25]
    lean: Floats  # [T, 2]


@dataclass
class Recording:
    """One clip: its people, the main actor first, and what they hold."""

    name: ClipId
    frames: int
    tracks: list[Track]
    held: list[Held]


def record(style: Style, name: ClipId) -> Recording:
    """Plays the performance of `name` and films it with its camera. The same for every call.

    The cameras of one performance see the same movement, each with its own noise.
    """
    rng = random_state(style.seed, "performance", performance_of(name))
    frames = int(rng.integers(style.frames[0], style.frames[1] + 1))
    subjects = [name.subject]
    if name.action in TWO_PERSON:
        subjects.append(int(rng.choice(partners(name.subject, style.subjects))))
    bodies = [make_body(style.seed, s) for s in subjects]
    # Each performance turns a little to one of the outer cameras, which NTU's do fully.
    facing = (0.2 if name.replication == 1 else -0.2) + rng.normal(0, 0.08)
    acting = perform(name.action, Take(bodies, rng, frames, facing), DISTRACTORS)
    spot = np.array([rng.normal(0, 0.15), 0.0, rng.normal(0, 0.15)])
    camera = place_camera(style.seed, name.setup, name.camera)
    noise = random_state(style.seed, "sensor", name)
    true = [camera.see(joints_of(b, p) + spot) for b, p in zip(bodies, acting.poses, strict=True)]
    tracks = []
    for i, (subject, body) in enumerate(zip(subjects, bodies, strict=True)):
        others = [t for k, t in enumerate(true) if k != i]
        seen, state = sense(true[i], others, style.skeleton_noise, noise)
        lean = lean_of(acting, i, camera)
        body_id = FIRST_BODY_ID + int(noise.integers(1, 9999))
        tracks.append(Track(subject, body, body_id, true[i], seen, state, lean))
    return Recording(name, frames, tracks, acting.held)


def lean_of(acting: Acting, who: int, camera: Camera) -> Floats:
    """Lean left-right and forward as the sensor reports it: [-1, 1] for -45..45 degrees, [T, 2]."""
    pose = acting.poses[who]
    toward = np.arctan2(camera.origin[0], -camera.origin[2])
    turned = pose.yaw - toward
    forward = pose.pitch * np.cos(turned) - pose.roll * np.sin(turned)
    sideways = pose.roll * np.cos(turned) + pose.pitch * np.sin(turned)
    return np.clip(np.stack([sideways, forward], -1) / (np.pi / 4), -1, 1)


def sense(
    true: Floats, others: list[Floats], noise: float, rng: np.random.Generator
) -> tuple[Floats, np.ndarray]:
    """Joints [T, 25, 3] and tracking states [T, 25] as a depth sensor's tracker returns them.

    White noise that grows with the square of the distance, slow drift, a constant error per joint
    and clip, more of all for hands and feet, most for joints that something hides.
    """
    frames = len(true)
    hidden = occluded(true, others)
    # The tracker also loses a joint for a while without a visible reason.
    for _ in range(rng.poisson(3)):
        joint, start = int(rng.integers(25)), int(rng.integers(frames))
        hidden[start : start + int(rng.integers(2, 10)), joint] = True
    scale = noise * (true[..., 2:3] / 3.0) ** 2
    scale = scale * np.where(np.isin(np.arange(25), LEAVES), 1.5, 1.0)[:, None]
    scale = scale * np.where(hidden, 2.5, 1.0)[..., None]
    error = 0.45 * rng.normal(size=true.shape)
    error += 0.6 * slow_noise(frames, rng) + 0.55 * rng.normal(size=(1, 25, 3))
    error[..., 2] *= 1.3
    seen = true + scale * error
    # A guessed joint stays behind: it is pulled half-way to where its parent is.
    parent = seen[:, np.maximum(PARENT, 0)]
    pulled = (hidden * rng.uniform(0.0, 0.5, (1, 25)))[..., None]
    return seen + pulled * (parent - seen) * 0.5, np.where(hidden, INFERRED, TRACKED)


def slow_noise(frames: int, rng: np.random.Generator) -> Floats:
    """Drift of unit size [T, 25, 3] with a memory of about seven frames."""
    keep = 0.86
    steps = rng.normal(size=(frames, 25, 3)) * np.sqrt(1 - keep**2)
    drift = np.empty_like(steps)
    drift[0] = rng.normal(size=(25, 3))
    for t in range(1, frames):
        drift[t] = keep * drift[t - 1] + steps[t]
    return drift


def occluded(true: Floats, others: list[Floats]) -> np.ndarray:
    """bool [T, 25]: joints behind the own trunk or behind another person's trunk or head."""
    hidden = np.zeros(true.shape[:2], bool)
    for blocker in (true, *others):
        for centre, radius in ((SPINE_MID, 0.17), (HEAD, 0.1)):
            ball = blocker[:, centre : centre + 1]
            ray = true / np.linalg.norm(true, axis=-1, keepdims=True)
            near = ball - (ball * ray).sum(-1, keepdims=True) * ray
            behind = true[..., 2] > ball[..., 2] + radius * 0.7
            hidden |= behind & (np.linalg.norm(near, axis=-1) < radius)
    return hidden
