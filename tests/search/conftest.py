"""A few clips in sealed shards, small enough that a whole search takes seconds."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks._clips import seal_rows
from components.batch import JOINTS, PERSONS

CLASSES, CLIPS, FRAMES, SIDE, MOMENTS = 3, 40, 4, 16, 8
SETTINGS = {
    "source": "ntu", "unit": "metres", "codec": "raw", "jpeg_quality": 0,
    "frames": FRAMES, "size": SIDE, "margin": 0.1,
}  # fmt: skip

TINY = [
    "data.protocol=custom", "data.custom.subjects=[1,2,3,4]", "data.val_subjects=[2]",
    "model.width=0.25", "model.rgb_frames=4", "model.rgb_size=16", "model.skeleton_frames=8",
    "train.batch_size=16", "train.attack.steps=2", "tracking.system_metrics=false",
    "tune.epochs=3", "tune.trials=3", "train.val_steps=2", "tune.finalists=1",
]  # fmt: skip


@pytest.fixture(scope="session")
def tiny_search() -> list[str]:
    """Settings of the tune stage for these clips."""
    return TINY


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 clips of 3 classes; subjects 1 to 4 train, of whom 2 validates, subject 5 tests."""
    folder = tmp_path_factory.mktemp("shards")
    random = np.random.default_rng(0)
    rows = [_clip(i, random) for i in range(CLIPS)]
    seal_rows(folder, rows, SETTINGS)
    return folder


def _clip(i: int, random: np.random.Generator) -> dict:
    """A clip whose class shows as brightness and as the pace of a wave."""
    subject, action, setup = 1 + i % 5, 1 + i % CLASSES, 1 + i // 15
    video = 70 * (action - 1) + random.integers(0, 60, (FRAMES, SIDE, SIDE, 3))
    wave = np.sin(2 * np.pi * action * np.arange(MOMENTS) / MOMENTS)
    joints = random.normal(0, 0.05, (MOMENTS, PERSONS, JOINTS, 3))
    joints += wave[:, None, None, None] * np.linspace(-1, 1, JOINTS)[:, None]
    joints[:, 1] = 0.0
    return {
        "clip_id": f"S{setup:03d}C001P{subject:03d}R001A{action:03d}",
        "setup": setup, "camera": 1, "subject": subject, "replication": 1, "action": action,
        "num_rgb_frames": FRAMES, "num_skeleton_frames": MOMENTS,
        "rgb_fps": 15.0, "skeleton_fps": 30.0,
        "width": SIDE, "height": SIDE, "box": [0, 0, SIDE], "persons": 1, "flags": [],
        "rgb_index": np.arange(FRAMES, dtype=np.int32),
        "rgb": [frame.astype(np.uint8).tobytes() for frame in video],
        "skeleton_index": np.arange(MOMENTS, dtype=np.int32),
        "skeleton": np.ascontiguousarray(joints, dtype=np.float32).reshape(MOMENTS, -1),
        "present": np.array([[1, 0]] * MOMENTS, dtype=np.uint8),
    }  # fmt: skip
