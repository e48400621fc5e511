"""A picture of one prediction: a frame, the skeleton, the best classes, the modality weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from components.batch import BONES
from components.shards import Clip

TOP = 5


def draw(clip: Clip, answer: Mapping[str, Any], path: Path) -> None:
    """Write the picture to `path`; its ending chooses the format."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    frame, body, classes, weights = figure.subplots(1, 4, width_ratios=(1, 1, 1.4, 0.8))
    middle = len(clip.rgb) // 2
    frame.imshow(clip.rgb[middle])
    frame.set_title(f"frame {clip.rgb_index[middle]} of {clip.num_rgb_frames}")
    frame.axis("off")
    _skeleton(body, clip, middle)
    best = sorted(answer["probabilities"].items(), key=lambda item: -item[1])[:TOP][::-1]
    classes.barh([name for name, _ in best], [share for _, share in best], color="tab:blue")
    classes.set_xlim(0, 1)
    classes.set_title("probability")
    shares = answer["modality_weights"]
    if shares:
        weights.bar(list(shares), list(shares.values()), color=["tab:orange", "tab:green"])
        weights.set_ylim(0, 1)
        weights.set_title("modality weight")
    else:
        weights.axis("off")
        weights.set_title("this fusion has no weights")
    figure.suptitle(f"{answer['class_name']} ({100 * answer['probability']:.1f} %)")
    figure.savefig(path)


def _skeleton(axes: Any, clip: Clip, middle: int) -> None:
    """The joints at the instant of the frame, seen from the camera."""
    seconds = clip.rgb_index[middle] / clip.rgb_fps
    step = min(int(seconds * clip.skeleton_fps), clip.num_skeleton_frames - 1)
    for person in np.flatnonzero(clip.present[step]):
        joints = clip.skeleton[step, person]
        for a, b in BONES:
            axes.plot(joints[[a, b], 0], joints[[a, b], 1], color=f"C{person}", linewidth=1.5)
        axes.scatter(joints[:, 0], joints[:, 1], s=6, color=f"C{person}")
    axes.set_aspect("equal")
    axes.set_title(f"skeleton, {int(clip.present[step].sum())} present")
