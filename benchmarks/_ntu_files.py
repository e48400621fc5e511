"""NTU-format files for the benchmarks: real AVI encoding and skeleton text, made up content."""

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from components.ntu.ids import ClipId
from components.ntu.joints import JOINTS


def write_video(path: Path, frames: int, width: int, height: int, seed: int = 0) -> None:
    """An AVI as NTU's: MPEG-4 Part 2, yuv420p, 30 fps, a key frame every 12 frames, 11 Mbit/s
    at 1080p. A textured figure moves over a still, grainy room."""
    rng = np.random.default_rng(seed)
    room = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    room = room.repeat(8, 0).repeat(8, 1)[:height, :width]
    room = np.pad(room, ((0, height - room.shape[0]), (0, width - room.shape[1]), (0, 0)), "edge")
    figure = rng.integers(0, 256, (height * 3 // 4, width // 6, 3), dtype=np.uint8)
    figure = figure // 2 + 64
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate = max(200_000, int(11e6 * width * height / (1920 * 1080)))
        stream.codec_context.gop_size = 12
        for step in range(frames):
            picture = room.copy()
            left = int((width - figure.shape[1]) * (0.4 + 0.2 * np.sin(step / 9)))
            top = height // 8
            picture[top : top + figure.shape[0], left : left + figure.shape[1]] = figure
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def write_skeleton(path: Path, frames: int, seed: int = 0, bodies: int = 1) -> None:
    """A `.skeleton` file with every field, one or more people standing and moving."""
    rng = np.random.default_rng(seed)
    height = np.linspace(-0.9, 0.8, JOINTS)
    lines = [str(frames)]
    for step in range(frames):
        lines.append(str(bodies))
        for body in range(bodies):
            lines += [f"{72057594037931101 + body} 0 1 1 1 1 0 0.01 0.02 2", str(JOINTS)]
            x = 0.1 * np.sin(step / 9) + 0.8 * body + rng.normal(0, 0.15, JOINTS)
            z = 3.0 + rng.normal(0, 0.05, JOINTS)
            for joint in range(JOINTS):
                u, v = 0.5 + 0.55 * x[joint] / z[joint], 0.5 - 0.98 * height[joint] / z[joint]
                place = f"{x[joint]:.6f} {height[joint]:.6f} {z[joint]:.6f}"
                pixels = f"{512 * u:.4f} {424 * v:.4f} {1920 * u:.4f} {1080 * v:.4f}"
                lines.append(f"{place} {pixels} 0.1 0.2 0.3 0.9 2")
    path.write_text("\r\n".join(lines) + "\r\n")


def write_tree(
    root: Path, clips: Sequence[ClipId], *, frames: int, width: int, height: int, distinct: int = 8
) -> None:
    """NTU's two folders. Only `distinct` different clips are encoded, the others are hard links,
    so that a tree of many clips costs little time and disk."""
    rgb, skeletons = root / "nturgb+d_rgb", root / "nturgb+d_skeletons"
    rgb.mkdir(parents=True)
    skeletons.mkdir()
    for number, clip in enumerate(clips):
        video, skeleton = rgb / f"{clip}_rgb.avi", skeletons / f"{clip}.skeleton"
        if number < distinct:
            write_video(video, frames, width, height, seed=number)
            write_skeleton(skeleton, frames, seed=number)
        else:
            first = clips[number % distinct]
            video.hardlink_to(rgb / f"{first}_rgb.avi")
            skeleton.hardlink_to(skeletons / f"{first}.skeleton")
