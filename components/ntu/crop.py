"""One square box around the people of a clip, in pixels of its video."""

from typing import NamedTuple

import numpy as np

MIN_POINTS = 25  # fewer usable points than one body has give no box
MIN_SIDE = 0.05  # of the picture's height; a smaller box is a tracking fault
OUTSIDE = 0.25  # points this share beyond the edge still count: people walk out of the picture

# Around the people, as a share of their box: hands and held things lie outside the joints' hull.
MARGIN = 0.15


class Box(NamedTuple):
    """A square: left and top corner (may lie outside the picture) and side, in whole pixels."""

    left: int
    top: int
    side: int


def people_box(
    pixels: np.ndarray, present: np.ndarray, width: int, height: int, margin: float
) -> Box | None:
    """The square around all usable points of a clip, wider by `margin` of its side all around.

    pixels [F, M, 25, 2] as shares of the picture, present [F, M]. The box is moved into the
    picture where it fits. None when the points give no sensible box.
    """
    points = pixels[present].reshape(-1, 2)
    usable = np.isfinite(points).all(axis=1) & (points != 0).any(axis=1)
    usable &= ((points > -OUTSIDE) & (points < 1 + OUTSIDE)).all(axis=1)
    points = np.clip(points[usable], 0.0, 1.0) * (width, height)
    if len(points) < MIN_POINTS:
        return None
    low, high = points.min(axis=0), points.max(axis=0)
    side = float((high - low).max())
    if side < MIN_SIDE * height:
        return None
    whole = max(1, round(side * (1 + 2 * margin)))
    middle = (low + high) / 2
    corner = [
        _inside(float(m) - whole / 2, whole, room)
        for m, room in zip(middle, (width, height), strict=True)
    ]
    return Box(corner[0], corner[1], whole)


def whole_box(width: int, height: int) -> Box:
    """The smallest centred square that holds the whole picture."""
    side = max(width, height)
    return Box((width - side) // 2, (height - side) // 2, side)


def _inside(start: float, side: int, room: int) -> int:
    # A side larger than the picture is centred on it, and the surplus stays black.
    return round((room - side) / 2) if side > room else round(min(max(start, 0), room - side))


class Placement(NamedTuple):
    """Which part of a picture a box shows, and where in the scaled square that part comes to lie.

    x0, y0, x1, y1: in pixels of the picture; left, top, width, height: of the square of `size`.
    Width or height is 0 where the box lies outside the picture.
    """

    x0: int
    y0: int
    x1: int
    y1: int
    left: int
    top: int
    width: int
    height: int


def placement(box: Box, width: int, height: int, size: int) -> Placement:
    """Where the part of `box` inside a picture of width x height goes in a square of `size`."""
    x0, x1 = max(box.left, 0), min(box.left + box.side, width)
    y0, y1 = max(box.top, 0), min(box.top + box.side, height)
    scale = size / box.side
    left, top = round((x0 - box.left) * scale), round((y0 - box.top) * scale)
    right, bottom = round((x1 - box.left) * scale), round((y1 - box.top) * scale)
    return Placement(x0, y0, x1, y1, left, top, max(right - left, 0), max(bottom - top, 0))
