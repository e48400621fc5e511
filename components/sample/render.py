"""Draws a recording as video frames: people of tapered limbs with clothes, before a room."""

from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
from PIL import Image, ImageDraw

from components.sample.actions import Held
from components.sample.body import HEAD, HIP, NECK, SHOULDER, SPINE_BASE, TIP, Body, Floats
from components.sample.camera import BASELINE, COLOUR_FOCUS, COLOUR_SIZE
from components.sample.plan import Style, random_state
from components.sample.recording import Recording

Colour = tuple[int, int, int]
Painter = Callable[[], None]
FINE = 2  # drawn at twice the size and averaged down, which smooths the edges

SKIN: tuple[Colour, ...] = ((224, 182, 150), (198, 150, 116), (160, 112, 80), (104, 72, 52))
HAIR: tuple[Colour, ...] = ((30, 24, 22), (66, 46, 32), (122, 88, 52), (70, 70, 72))


class Look:
    """Face and hair of a subject, and the clothes worn in one setup."""

    def __init__(self, seed: int, subject: int, setup: int) -> None:
        rng = random_state(seed, "look", subject)
        self.skin = SKIN[rng.integers(len(SKIN))]
        self.hair = HAIR[rng.integers(len(HAIR))]
        self.long_hair = bool(rng.random() < 0.4)
        rng = random_state(seed, "clothes", subject, setup)
        self.shirt = muted(random_colour(rng), rng.uniform(80, 150), 0.8)
        self.trousers = muted(random_colour(rng), rng.uniform(50, 110), 0.8)
        self.long_sleeves = bool(rng.random() < 0.5)
        self.shorts = bool(rng.random() < 0.15)


def random_colour(rng: np.random.Generator, bright: float = 1.0) -> Colour:
    """Any colour that clothes may have."""
    r, g, b = (int(v) for v in rng.integers(25, 235, 3) * bright)
    return r, g, b


def muted(colour: Colour, level: float, share: float = 0.75) -> Colour:
    """Mixed with a grey of `level`: rooms and clothes are duller than what hands hold."""
    r, g, b = (int((1 - share) * c + share * level) for c in colour)
    return r, g, b


def shade(colour: Colour, factor: float) -> Colour:
    """A lighter or darker colour."""
    r, g, b = (int(min(255, max(0, c * factor))) for c in colour)
    return r, g, b


def render(style: Style, recording: Recording) -> list[np.ndarray]:
    """The frames, uint8 [H, W, 3] each."""
    rng = random_state(style.seed, "video", recording.name)
    room = background(style, recording.name.setup, recording.name.camera)
    looks = [Look(style.seed, track.subject, recording.name.setup) for track in recording.tracks]
    props = [(held, *prop_look(held.kind, rng)) for held in recording.held]
    gain = np.clip(rng.normal(1.0, 0.08), 0.8, 1.2) * np.clip(rng.normal(1, 0.03, 3), 0.9, 1.1)
    light = [min(255, int(level * g + 0.5)) for g in gain for level in range(256)]
    grain = rng.normal(0, 2.5, (style.height + 16, style.width + 16, 1)).astype(np.int16)
    frames = []
    for t in range(recording.frames):
        image = room.copy()
        draw = ImageDraw.Draw(image)
        for m in sorted(range(len(looks)), key=lambda m: -recording.tracks[m].true[t, 0, 2]):
            track = recording.tracks[m]
            draw_person(draw, track.true[t], track.body, looks[m], props if m == 0 else [], style)
        small = np.asarray(image.reduce(FINE).point(light))
        dy, dx = rng.integers(0, 16, 2)
        small = small + grain[dy : dy + style.height, dx : dx + style.width]
        frames.append(np.clip(small, 0, 255).astype(np.uint8))
    return frames


# Colour of each object, far from the others, from skin and from the greys of rooms and clothes.
COLOURS: dict[str, Colour] = {
    "cup": (225, 25, 25),
    "brush": (20, 215, 40),
    "phone": (25, 45, 225),
    "book": (250, 250, 245),
    "board": (245, 205, 15),
    "tablet": (8, 8, 10),
}
# Half the width and half the height of what both hands hold, in metres.
SHEETS = {"book": (0.25, 0.15), "board": (0.15, 0.2), "tablet": (0.2, 0.14)}


def prop_look(kind: str, rng: np.random.Generator) -> tuple[Colour, float]:
    """Colour and size factor of one object; they differ a little from clip to clip."""
    return shade(COLOURS[kind], float(rng.uniform(0.9, 1.1))), float(rng.uniform(0.9, 1.15))


class Pencil:
    """Draws in metres: widths are scaled by the distance of what is drawn."""

    def __init__(self, draw: ImageDraw.ImageDraw, joints: Floats, style: Style) -> None:
        self.draw, self.joints = draw, joints
        self.scale = style.width * FINE / COLOUR_SIZE[0]

    def pixel(self, point: Floats) -> tuple[float, float]:
        # colour_pixels for one point: plain floats, because this is the innermost loop.
        x, y, z = float(point[0]), float(point[1]), max(float(point[2]), 0.1)
        across = COLOUR_SIZE[0] / 2 - 0.5 + COLOUR_FOCUS * (x + BASELINE) / z
        return across * self.scale, (COLOUR_SIZE[1] / 2 - 0.5 - COLOUR_FOCUS * y / z) * self.scale

    def width(self, point: Floats, metres: float) -> float:
        return metres * COLOUR_FOCUS * self.scale / max(float(point[2]), 0.1)

    def ball(self, point: Floats, radius: float, colour: Colour) -> None:
        (x, y), r = self.pixel(point), max(self.width(point, radius), 0.7)
        self.draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def limb(self, a: Floats, b: Floats, ra: float, rb: float, colour: Colour) -> None:
        """A tapered capsule from a to b with radii in metres."""
        (xa, ya), (xb, yb) = self.pixel(a), self.pixel(b)
        length = float(np.hypot(xb - xa, yb - ya))
        if length > 1e-6:
            nx, ny = -(yb - ya) / length, (xb - xa) / length
            wa, wb = self.width(a, ra), self.width(b, rb)
            outline = [(xa + nx * wa, ya + ny * wa), (xb + nx * wb, yb + ny * wb)]
            outline += [(xb - nx * wb, yb - ny * wb), (xa - nx * wa, ya - ny * wa)]
            self.draw.polygon(outline, fill=colour)
        self.ball(a, ra, colour)
        self.ball(b, rb, colour)

    def plate(self, corners: list[Floats], colour: Colour) -> None:
        self.draw.polygon([self.pixel(c) for c in corners], fill=colour)


def draw_person(
    draw: ImageDraw.ImageDraw,
    joints: Floats,
    body: Body,
    look: Look,
    props: list[tuple[Held, Colour, float]],
    style: Style,
) -> None:
    """One person at one moment, parts from far to near. joints: camera space [25, 3]."""
    pencil, g = Pencil(draw, joints, style), body.girth * body.height / 1.71
    parts: list[tuple[float, Painter]] = []

    def add(depth: float, paint: Painter) -> None:
        parts.append((depth, paint))

    for side in (-1, 1):
        s, h = SHOULDER[side], HIP[side]
        sleeve = look.shirt if look.long_sleeves else look.skin
        leg = look.skin if look.shorts else look.trousers
        tone = 0.92 if side < 0 else 1.04
        limbs = (
            (s, s + 1, 0.058, 0.045, look.shirt),
            (s + 1, s + 2, 0.043, 0.032, sleeve),
            (s + 2, TIP[side], 0.036, 0.022, look.skin),
            (h, h + 1, 0.085, 0.06, look.trousers),
            (h + 1, h + 2, 0.058, 0.042, leg),
            (h + 2, h + 3, 0.045, 0.04, (40, 38, 36)),
        )
        for a, b, ra, rb, colour in limbs:
            depth = float(joints[a, 2] + joints[b, 2]) / 2
            start, end, tinted = joints[a], joints[b], shade(colour, tone)
            add(depth, partial(pencil.limb, start, end, ra * g, rb * g, tinted))
    add(float(joints[1, 2]) - 0.03, partial(draw_trunk, pencil, joints, g, look))
    add(float(joints[HEAD, 2]) - 0.02, partial(draw_head, pencil, joints, body, look))
    for held, colour, size in props:
        add(*prop_part(pencil, joints, held, colour, size))
    for _, paint in sorted(parts, key=lambda part: -part[0]):
        paint()


def draw_trunk(pencil: Pencil, joints: Floats, g: float, look: Look) -> None:
    """A shirt between shoulders and hips."""
    left, right = joints[SHOULDER[-1]], joints[SHOULDER[1]]
    low_left, low_right = joints[HIP[-1]], joints[HIP[1]]
    pencil.limb(joints[20], joints[SPINE_BASE], 0.1 * g, 0.1 * g, look.shirt)
    pencil.plate([left, right, low_right, low_left], look.shirt)
    pencil.limb(left, right, 0.06 * g, 0.06 * g, look.shirt)
    pencil.limb(left, low_left, 0.06 * g, 0.075 * g, shade(look.shirt, 0.95))
    pencil.limb(right, low_right, 0.06 * g, 0.075 * g, look.shirt)
    pencil.limb(low_left, low_right, 0.085 * g, 0.085 * g, look.trousers)


def draw_head(pencil: Pencil, joints: Floats, body: Body, look: Look) -> None:
    """Neck, face and hair; the face is on the side the body looks to."""
    head, radius = joints[HEAD], 0.062 * body.height
    across = joints[SHOULDER[1]] - joints[SHOULDER[-1]]
    facing = np.cross(np.array([0.0, 1.0, 0.0]), across)
    facing /= max(float(np.linalg.norm(facing)), 1e-6)
    pencil.limb(joints[NECK], head, 0.05, 0.05, look.skin)
    pencil.ball(head, radius, look.skin)
    back = head - 0.035 * facing + np.array([0.0, 0.03, 0.0])
    if facing[2] < 0:  # towards the camera: hair only above
        pencil.ball(head + np.array([0.0, 0.05, 0.0]), radius * 0.85, look.hair)
        pencil.ball(head + 0.02 * facing - np.array([0.0, 0.02, 0.0]), radius * 0.82, look.skin)
    else:
        pencil.ball(back, radius * 1.02, look.hair)
        if look.long_hair:
            pencil.limb(back, joints[NECK] - 0.03 * facing, radius, 0.07, look.hair)


def prop_part(
    pencil: Pencil, joints: Floats, held: Held, colour: Colour, size: float
) -> tuple[float, Painter]:
    """Depth and painter of an object in the hand, all of them larger than real ones."""
    up = np.array([0.0, 1.0, 0.0])
    if held.both:
        middle = (joints[SHOULDER[-1] + 3] + joints[SHOULDER[1] + 3]) / 2 + 0.05 * up
        across = joints[SHOULDER[1]] - joints[SHOULDER[-1]]
        across = across / max(float(np.linalg.norm(across)), 1e-6)
        half, tall = SHEETS[held.kind]
        rise, wide = up * tall * size, across * half * size
        corners = [middle - wide - rise, middle + wide - rise]
        corners += [middle + wide + rise, middle - wide + rise]
        return float(middle[2]) - 0.1, partial(pencil.plate, corners, colour)
    hand = joints[SHOULDER[held.side] + 3]
    nearer = float(hand[2]) - 0.15
    if held.kind == "brush":
        # Across the face, from the hand to the other side.
        end = hand + np.array([np.sign(joints[HEAD, 0] - hand[0]) * 0.36 * size, 0.05, 0.0])
        return nearer, partial(pencil.limb, hand, end, 0.035, 0.035, colour)
    if held.kind == "cup":
        low, high = hand - 0.06 * size * up, hand + 0.1 * size * up
        return nearer, partial(pencil.limb, low, high, 0.08, 0.09, colour)
    low, high = hand - 0.15 * size * up, hand + 0.17 * size * up
    return nearer, partial(pencil.limb, low, high, 0.06, 0.06, colour)


@lru_cache(maxsize=64)
def background(style: Style, setup: int, camera: int) -> Image.Image:
    """The room one camera of a setup sees: wall, floor, furniture, texture; at FINE size."""
    rng = random_state(style.seed, "room", setup, camera)
    width, height = style.width * FINE, style.height * FINE
    # Laboratories: light walls, a darker floor, little that is colourful.
    wall = muted(random_colour(rng), 165, 0.85)
    floor = muted(random_colour(rng), 110, 0.85)
    image = Image.new("RGB", (width, height), wall)
    draw = ImageDraw.Draw(image)
    line = int(height * rng.uniform(0.62, 0.78))
    draw.rectangle((0, line, width, height), fill=floor)
    for _ in range(int(rng.integers(1, 4))):
        x, y = rng.uniform(-0.1, 1.0) * width, rng.uniform(0.05, 0.75) * height
        w, h = rng.uniform(0.03, 0.25) * width, rng.uniform(0.08, 0.45) * height
        draw.rectangle(
            (x, y, x + w, y + h), fill=muted(random_colour(rng), rng.uniform(110, 180), 0.85)
        )
    for scale, strength in ((24, 6.0), (6, 3.0)):
        coarse = rng.normal(0, strength, (height // scale + 1, width // scale + 1))
        layer = Image.fromarray(np.clip(coarse + 128, 0, 255).astype(np.uint8))
        texture = np.asarray(layer.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        mixed = np.asarray(image, np.float32) + (texture - 128)[..., None]
        image = Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))
    return image
