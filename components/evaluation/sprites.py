"""Clips as small pictures and bytes, for what is looked at and not computed with.

A video is one WebP picture, its frames side by side. A change of it is a lossless one of whole
steps around grey (128), so that clean + change is the attacked frame to the last bit of a screen.
"""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

FRAMES = 8  # of the video that are kept
SIDE = 64  # most pixels a side; larger frames keep every second, third ... pixel
STEPS = 32  # of the skeleton that are kept
GREY = 128
QUALITY = 85


def thin_video(rgb: Tensor) -> Tensor:
    """[3, T, H, W] -> [3, t, h, w] with at most `FRAMES` frames and `SIDE` pixels a side.

    Pixels are left out, never mixed: each one shown is one that the model saw.
    """
    every = -(-max(rgb.shape[2:]) // SIDE)
    return rgb[:, evenly(rgb.shape[1], FRAMES), ::every, ::every]


def thin_joints(joints: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """[3, S, V, M] and [S, M] -> [s, m, V, 3] and [s, m] without the places nobody fills."""
    steps = evenly(joints.shape[1], STEPS)
    filled = present.any(0).nonzero().flatten()
    persons = int(filled[-1]) + 1 if len(filled) else 1
    thin = joints[:, steps, :, :persons].permute(1, 3, 2, 0)
    return thin, present[steps, :persons]


def evenly(count: int, most: int) -> Tensor:
    """Positions of at most `most` of `count` things, evenly spread; int64."""
    kept = min(count, most)
    return torch.div((2 * torch.arange(kept) + 1) * count, 2 * kept, rounding_mode="floor")


def video_sprite(rgb: Tensor) -> bytes:
    """WebP of a video [3, t, h, w] in [0, 1]."""
    return _webp((255 * rgb).round().clamp(0, 255), quality=QUALITY)


def change_sprite(change: Tensor) -> tuple[bytes, float]:
    """Lossless WebP of a change [3, t, h, w], and its step: colour = 128 + change / step.

    The step is 1/255, a screen's own, unless the change is too large for it.
    """
    step = max(1 / 255, float(change.abs().max()) / 127)
    # For a lossless picture `quality` is effort. All of it, with method 6, gives files 2 % smaller
    # in 1.2 s a picture of the sample; this takes 4 ms.
    return _webp((change / step).round() + GREY, lossless=True, quality=50), step


def whole_steps(values: Tensor, kind: type[np.signedinteger]) -> tuple[bytes, float]:
    """`values` as whole numbers of `kind`, and their step: value = number * step."""
    largest = float(values.abs().max()) if values.numel() else 0.0
    step = largest / np.iinfo(kind).max or 1.0
    return (values / step).round().cpu().numpy().astype(kind).tobytes(), step


def _webp(colours: Tensor, **options: float) -> bytes:
    """A strip of frames [3, t, h, w] with values 0..255, left to right."""
    _, frames, height, width = colours.shape
    strip = colours.permute(2, 1, 3, 0).reshape(height, frames * width, 3)
    out = io.BytesIO()
    image = Image.fromarray(strip.to(torch.uint8).cpu().contiguous().numpy())
    image.save(out, "WEBP", method=4, **options)
    return out.getvalue()
