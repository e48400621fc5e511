"""Ghost removal on real actors: are ghosts dropped, and does every actor stay?

    python -m benchmarks ghost_removal -- --data FOLDER

For each clip in NTU layout: as it is; with a piece of furniture planted (a still body wider than
high, tracked over the whole clip); with a flicker planted (a standing body seen for 11 frames);
with both. An actor stays when the main slot holds the same joints as in the untouched clip. The
ratio is the share of actors that stay over all of these; ghosts that stay are counted beside it.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks._bench import Result
from components.ntu.people import MIN_FRAMES, SPREAD_SHARE, choose_people, upright_frames
from components.ntu.skeleton import Bodies, Body, read_skeleton
from components.sources import get_source

EXPLICIT = True  # needs real clips
GOAL = 1.0


def run(args: list[str]) -> Result:
    """Plant ghosts into each clip, choose the people, count."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks ghost_removal --")
    parser.add_argument("--data", required=True, help="a folder in NTU layout")
    data = Path(parser.parse_args(args).data)
    counts: Counter[str] = Counter()
    for found in get_source("ntu").find(data).clips:
        if not found.skeleton:
            continue
        clip = read_skeleton(data / found.skeleton)
        plain = choose_people(clip)
        counts["clips"] += 1
        counts["ghosts removed as it is"] += plain.ghosts
        actor = plain.joints[plain.present[:, 0], 0]
        counts["actors of furniture's shape"] += int(
            (~upright_frames(actor)).mean() >= SPREAD_SHARE
        )
        chair, flicker = _furniture(clip), _flicker(clip)
        for name, planted in (("furniture", [chair]), ("flicker", [flicker]),
                              ("both", [chair, flicker])):  # fmt: skip
            people = choose_people(Bodies(clip.num_frames, [*planted, *clip.bodies]))
            stays = np.array_equal(people.joints[:, 0], plain.joints[:, 0])
            counts[f"actors kept beside {name}"] += int(stays)
            counts[f"ghosts kept of {name}"] += len(planted) + plain.ghosts - people.ghosts
            counts["kept"] += int(stays)
    return Result(
        name="ghost_removal",
        ratio=counts["kept"] / (3 * counts["clips"]) if counts["clips"] else 0.0,
        goal=GOAL,
        sense=">=",
        sides={k: int(v) for k, v in counts.items() if k != "kept"},
        unit="share of actors that stay",
        notes=f"{counts['clips']} clips of {data}",
    )


def _furniture(clip: Bodies) -> Body:
    rng = np.random.default_rng(clip.num_frames)
    one = np.column_stack(
        [np.linspace(-0.6, 0.6, 25), rng.uniform(-0.3, 0.3, 25), rng.uniform(2.4, 2.8, 25)]
    )
    noise = rng.normal(0, 0.01, (clip.num_frames, 25, 3))
    return _body(72057594037900001, np.arange(clip.num_frames), one + noise)


def _flicker(clip: Bodies) -> Body:
    rng = np.random.default_rng(clip.num_frames + 1)
    frames = np.arange(min(MIN_FRAMES, clip.num_frames))
    one = np.column_stack([rng.uniform(0.8, 1.1, 25), np.linspace(-0.9, 0.8, 25), np.full(25, 3)])
    return _body(72057594037900002, frames, one + rng.normal(0, 0.2, (len(frames), 1, 3)))


def _body(number: int, frames: np.ndarray, joints: np.ndarray) -> Body:
    pixels = np.full((len(frames), 25, 2), 0.5, np.float32)
    return Body(number, frames.astype(np.int32), joints.astype("f4"), pixels)
