"""Paired augmentation: one decision a clip, drawn once and applied to both of its streams."""

from typing import NamedTuple

import numpy as np

from components.ntu.joints import mirror_order
from components.seeds import clip_seeds, uniform

_SWAP = mirror_order()


class Ranges(NamedTuple):
    """From what a choice is drawn. The defaults are those of `train.augment`.

    They change a clip about as much as another take of it by the same person would. Nothing is
    mirrored, because many classes differ by the hand alone; `mirror` is a probability.
    """

    mirror: float = 0.0
    temporal_crop: float = 0.7  # smallest share of the clip's span that is kept
    shift: float = 0.08  # largest, of the picture's side
    rotate: float = 0.3  # largest, radians about the vertical axis
    scale: float = 0.1  # largest relative change of size


class Choice(NamedTuple):
    """What happens to one clip: to its time, its picture and its joints."""

    start: float = 0.0  # of the clip's span
    share: float = 1.0  # of the clip's span
    mirror: bool = False
    shift_x: float = 0.0  # of the picture's side
    shift_y: float = 0.0
    angle: float = 0.0  # radians about the vertical axis
    scale: float = 1.0


PLAIN = Choice()


def draw(ranges: Ranges, seed: int, clip_ids: list[str], epoch: int) -> list[Choice]:
    """One choice a clip, by (seed, clip, epoch) alone."""
    draws = uniform(clip_seeds(seed, clip_ids, f"augment-{epoch}"), (7,)).numpy().astype(float)
    choices = []
    for u in draws:
        share = 1.0 - u[0] * (1.0 - ranges.temporal_crop)
        signed = 2.0 * u - 1.0
        choices.append(
            Choice(
                start=u[1] * (1.0 - share),
                share=share,
                mirror=bool(u[2] < ranges.mirror),
                shift_x=signed[3] * ranges.shift,
                shift_y=signed[4] * ranges.shift,
                angle=signed[5] * ranges.rotate,
                scale=1.0 + signed[6] * ranges.scale,
            )
        )
    return choices


def augment_rgb(frames: np.ndarray, choice: Choice) -> np.ndarray:
    """Mirror and shift uint8 [T, H, W, 3]; what is shifted in repeats the edge."""
    count, height, width, channels = frames.shape
    right, down = round(choice.shift_x * width), round(choice.shift_y * height)
    if not (choice.mirror or right or down):
        return frames
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    if choice.mirror:
        columns = width - 1 - columns
    # By bytes of a row: numpy is several times slower at moving pixels of three bytes.
    places = (columns[:, None] * channels + np.arange(channels)).ravel()
    flat = frames.reshape(count, height, width * channels)[:, rows]
    return flat.take(places, axis=2, mode="clip").reshape(frames.shape)


def augment_skeleton(
    joints: np.ndarray, present: np.ndarray, choice: Choice, *, width: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mirror, turn about the vertical axis and scale float32 [S, 2, 25, 3]; absent stays 0.

    Turning and scaling are about the middle of all people there, so that two people keep their
    places to each other. `width` is the picture's width for joints in pixels: there a mirror runs
    about the picture's middle and nothing is turned.
    """
    if not present.any():
        return joints, present
    if choice.mirror:
        joints = joints[:, :, _SWAP].copy()
        joints[..., 0] = -joints[..., 0] if width is None else width - joints[..., 0]
    if choice.angle or choice.scale != 1.0:
        middle = joints[present].reshape(-1, 3).mean(axis=0)
        turn = np.eye(3)
        if width is None:
            c, s = np.cos(choice.angle), np.sin(choice.angle)
            turn = np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])
        turned = (joints - middle) @ (turn.T * choice.scale).astype(np.float32)
        joints = turned + middle
    return np.where(present[:, :, None, None], joints, np.float32(0)), present
