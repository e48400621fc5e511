"""A picture of one clip: frames with crop box and projected skeletons, beside them a 3D view."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from components.batch import BONES
from components.ntu.people import People
from components.ntu.skeleton import Rejected
from components.ntu.video import evenly_spaced
from pipelines._look import Seen

SHOWN = 3  # frames
LINE = 1.3


def draw(seen: Seen, path: Path) -> None:
    """Write the picture to `path`; its ending chooses the format.

    A file that cannot be read leaves its place empty, with the reason in it.
    """
    # A Figure without pyplot is drawn by Agg: no display is needed, and none is opened.
    figure = Figure(figsize=(3.6 * SHOWN + 4, 3.8), layout="constrained")
    grid = figure.add_gridspec(1, SHOWN + 1, width_ratios=[*[1.0] * SHOWN, 1.1])
    places = [figure.add_subplot(grid[0, i]) for i in range(SHOWN)]
    body = figure.add_subplot(grid[0, SHOWN], projection="3d")
    steps = _frames(places, seen)
    _body(body, seen, steps[len(steps) // 2])
    verdict = "accepted" if seen.fault is None else f"rejected, {seen.fault.reason}"
    figure.suptitle(f"{seen.found.clip}  {seen.class_name}: {verdict}")
    figure.savefig(path, dpi=110)


def _frames(places: list[Any], seen: Seen) -> list[int]:
    """Draw evenly spaced frames; the frames of the skeleton that belong to them."""
    if isinstance(seen.video, Rejected):
        for axes in places:
            axes.axis("off")
        places[len(places) // 2].set_title(str(seen.video), fontsize=8, wrap=True)
        return [_step(seen, 0.5)]
    count = seen.video.frames
    wanted = evenly_spaced(count, len(places)).tolist()
    steps = [_step(seen, (number + 0.5) / count, number) for number in wanted]
    pictures = {}
    for number, frame in enumerate(seen.source.frames(seen.root, seen.found, 1)):
        if number in wanted:
            pictures[number] = frame.to_ndarray(format="rgb24")
    for axes, number, step in zip(places, wanted, steps, strict=True):
        picture = pictures[number]
        height, width = picture.shape[:2]
        axes.imshow(picture)
        axes.set_title(f"frame {number} of {count}", fontsize=9)
        axes.axis("off")
        if seen.kept is not None:
            left, top, side = seen.kept.box
            axes.add_patch(
                Rectangle((left, top), side, side, fill=False, edgecolor="yellow", linewidth=LINE)
            )
            # The box may reach beyond the picture; what lies there is black in the shard.
            axes.set_xlim(min(0, left) - 1, max(width, left + side) + 1)
            axes.set_ylim(max(height, top + side) + 1, min(0, top) - 1)
        if isinstance(seen.people, People):
            for slot in np.flatnonzero(seen.people.present[step]):
                points = seen.people.pixels[step, slot] * (width, height)  # NaN is not drawn
                for a, b in BONES:
                    axes.plot(*points[[a, b]].T, color=f"C{slot}", linewidth=LINE)
    return steps


def _body(axes: Any, seen: Seen, step: int) -> None:
    """The people in one frame: x to the right, z into the depth, y up."""
    if isinstance(seen.people, Rejected):
        axes.set_axis_off()
        axes.set_title(str(seen.people), fontsize=8, wrap=True)
        return
    there = np.flatnonzero(seen.people.present[step])
    for slot in there:
        joints = seen.people.joints[step, slot]
        for a, b in BONES:
            x, y, z = joints[[a, b]].T
            axes.plot(x, z, y, color=f"C{slot}", linewidth=LINE)
    axes.set_xlabel("x")
    axes.set_ylabel("z")
    axes.set_zlabel("y")
    axes.tick_params(labelsize=7)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_major_locator(MaxNLocator(3))
    axes.set_title(f"skeleton frame {step} ({seen.unit}), people: {len(there)}", fontsize=9)
    if len(there):
        axes.set_aspect("equal")
    axes.view_init(elev=12, azim=-75)


def _step(seen: Seen, share: float, number: int = 0) -> int:
    """The skeleton frame at frame `number` of the video, as the data set pairs them.

    Of a clip that is rejected nobody knows the rates; then that at this share of the clip.
    """
    if isinstance(seen.people, Rejected):
        return 0
    steps = len(seen.people.present)
    if seen.kept is not None:
        share = number * seen.kept.skeleton_fps / seen.kept.rgb_fps / steps
    return min(int(share * steps + 1e-6), steps - 1)
