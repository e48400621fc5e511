"""`amr inspect CLIP`: what the files of one clip hold, and whether the pipeline would take it.

The same code as in the index and shard stages looks at the files, so what is shown here is what a
shard would get. The module is not called `inspect`: Ray puts this folder on its workers' path,
where the name would hide Python's own module.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from components.address import readable
from components.config import load_config
from components.ntu.skeleton import Rejected
from components.sources import get_source
from pipelines._clips import find_clip
from pipelines._look import Seen, see
from pipelines._stage import ROOT, Stage
from pipelines._terminal import ended_politely, painted, picture_errors


def main(argv: list[str] | None = None) -> int:
    """Say what is in the files of one clip. Status 0: it would be accepted; 1: rejected."""
    parser = argparse.ArgumentParser(
        prog="amr inspect", description=(main.__doc__ or "").splitlines()[0]
    )
    parser.add_argument("clip", help="its name, or the path of its video or skeleton")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. paths.data=/mnt")
    parser.add_argument("--png", type=Path, metavar="FILE", help="also draw it there")
    parser.add_argument("--params", default=str(ROOT / "params.yaml"), help="settings file")
    args = parser.parse_intermixed_args(argv)
    stage = Stage("inspect", load_config(args.params, args.overrides))
    root, found = find_clip(args.clip, get_source(stage.config.data.source), stage.data)
    seen = see(root, found, stage.config)
    for line in lines(seen):
        print(line)
    if root != stage.data and not (found.video and found.skeleton):
        print("note       its other file is not beside it; paths.data=FOLDER names a data set")
    if args.png:
        from pipelines._clip_picture import draw  # matplotlib takes a second

        with picture_errors(args.png):
            draw(seen, args.png)
        print(f"picture    {readable(str(args.png))}")
    return 0 if seen.fault is None else 1


def lines(seen: Seen) -> Iterator[str]:
    """The text about one clip, a line a fact."""
    found = seen.found
    yield f"clip       {found.clip}  {seen.class_name}"
    yield f"files      {readable(found.video) or 'no video'}"
    yield f"           {readable(found.skeleton) or 'no skeleton'}"
    if found.last >= 0:
        yield f"           frames {found.first} to {found.last} of the recording"
    yield from _video(seen)
    yield from _skeleton(seen)
    if seen.kept is not None:
        box, (width, height) = seen.kept.box, seen.kept.picture
        share = 100 * box.side**2 / (width * height)
        yield (
            f"crop       {box.side} x {box.side} pixels, left {box.left}, top {box.top} "
            f"({share:.0f} % of the picture's area)"
        )
    yield f"flags      {', '.join(seen.flags) or 'none'}"
    if seen.fault is None:
        yield f"verdict    {painted('accepted', 'green')}"
    else:
        words = f"rejected, {seen.fault.reason}"
        yield f"verdict    {painted(words, 'red')}: {seen.fault.detail}"


def _video(seen: Seen) -> Iterator[str]:
    if isinstance(seen.video, Rejected):
        yield f"video      {seen.video}"
        return
    video = seen.video
    rate = f"{video.fps:.4g} fps, {video.frames / video.fps:.1f} s" if video.fps else "rate unknown"
    text = f"{video.frames} frames of {video.width} x {video.height}, {rate}"
    if video.promised and video.promised != video.frames:
        text += f"; the header promises {video.promised}"
    yield f"video      {text}"


def _skeleton(seen: Seen) -> Iterator[str]:
    if isinstance(seen.people, Rejected):
        yield f"skeleton   {seen.people}"
        return
    people = seen.people
    frames = len(people.present)
    yield (
        f"skeleton   {frames} frames, bodies tracked: {people.bodies}, dropped: {people.ghosts}, "
        f"people kept: {people.persons}"
    )
    for slot in range(people.present.shape[1]):
        there = np.flatnonzero(people.present[:, slot])
        if len(there):
            yield f"person {slot + 1}   {len(there)} frames: {spans(there)}"
    empty = np.flatnonzero(~people.present.any(axis=1))
    yield f"missing    {f'{len(empty)} frames without a body: {spans(empty)}' if len(empty) else 0}"
    joints = people.joints[people.present]  # [N, 25, 3]
    low, high = joints.min(axis=(0, 1)), joints.max(axis=(0, 1))
    axes = (f"{n} {a:.2f} to {b:.2f}" for n, a, b in zip("xyz", low, high, strict=True))
    yield f"joints     {', '.join(axes)} ({seen.unit})"


def spans(numbers: np.ndarray) -> str:
    """Rising frame numbers as spans: "0-4, 9"."""
    parts = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    words = [str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts]
    return ", ".join(words[:8]) + (f" and {len(words) - 8} more" if len(words) > 8 else "")


if __name__ == "__main__":
    sys.exit(ended_politely("amr inspect", main))
