"""A tiny two-stream model and clips that can be learned: shared by the tests of training."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks._clips import seal_rows
from components.attacks import Budget, ThreatModel
from components.batch import JOINTS, PERSONS, Batch
from components.config import Config, apply_overrides, from_dict
from components.config.train import TrainSection
from components.models import build_model
from components.training.state import TrainState, new_state

CLASSES = 3
MODEL = {
    "rgb": "small_video",
    "skeleton": "small_skeleton",
    "fusion": "amr",
    "fusion_stages": (),
    "width": 0.25,
    "dropout": 0.1,
    "rgb_frames": 4,
    "rgb_size": 16,
    "skeleton_frames": 8,
    "rgb_weights": "",
    "amr": {"distil": 1.0},
    "num_classes": CLASSES,
}


def make_clips(count: int, seed: int = 0) -> Batch:
    """Clips whose class shows as brightness and as the pace of a motion, with some noise."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(count) % CLASSES
    rgb = 0.2 * torch.rand((count, 3, 4, 16, 16), generator=generator)
    rgb += 0.3 * label[:, None, None, None, None]
    time = torch.arange(8) / 8.0
    wave = torch.sin(2 * torch.pi * (1 + label[:, None]) * time)
    skeleton = 0.05 * torch.randn((count, 3, 8, JOINTS, PERSONS), generator=generator)
    skeleton += wave[:, None, :, None, None] * torch.linspace(-1, 1, JOINTS)[:, None]
    present = torch.ones((count, 8, PERSONS), dtype=torch.bool)
    present[:, :, 1] = False
    skeleton = skeleton * present[:, None, :, None, :]
    ids = tuple(f"S001C001P001R001A{i:03d}" for i in range(count))
    return Batch(rgb.clamp(0, 1), skeleton, present, label, ids)


class InMemory:
    """`TrainData` over clips in memory; worker `rank` of `world` takes every world-th clip."""

    def __init__(self, train: Batch, validation: Batch, size: int, rank: int = 0, world: int = 1):
        self.clips, self.validated, self.size = train, validation, size
        self.rank, self.world = rank, world

    def steps(self) -> int:
        return -(-self.clips.size // self.size)

    def train(self, epoch: int) -> Iterable[tuple[Batch, int]]:
        order = torch.randperm(self.clips.size, generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(self.size):
            yield self.clips.select(rows[self.rank :: self.world]), len(rows)

    def validation(self) -> Iterable[Batch]:
        order = torch.arange(self.validated.size)
        return [self.validated.select(order[self.rank :: self.world])]

    def held_out_steps(self) -> int:
        return 2

    def held_out(self, epoch: int) -> Iterable[tuple[Batch, int]]:
        order = torch.randperm(self.validated.size, generator=torch.Generator().manual_seed(epoch))
        for rows in order.chunk(2):
            yield self.validated.select(rows[self.rank :: self.world]), len(rows)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def clips() -> Batch:
    return make_clips(24)


@pytest.fixture
def data() -> InMemory:
    return InMemory(make_clips(24), make_clips(12, seed=1), size=8)


@pytest.fixture
def section() -> Callable[..., TrainSection]:
    """A short training section, with changes."""

    def make(**changes) -> TrainSection:
        base = {
            "epochs": 2, "batch_size": 8, "val_steps": 2, "attack": {"steps": 2},
            "ramp": 0.0, "stack_epochs": 0,
        }  # fmt: skip
        return from_dict({"train": {**base, **changes}}).train

    return make


@pytest.fixture
def fresh() -> Callable[..., TrainState]:
    """A new state of the tiny model, the same weights each time."""

    def make(train: TrainSection, seed: int = 0) -> TrainState:
        torch.manual_seed(seed)
        model = build_model(MODEL)
        return new_state(model, lr=train.lr, ema=train.ema)

    return make


SETTINGS = {
    "source": "ntu", "unit": "metres", "codec": "raw", "jpeg_quality": 0,
    "frames": 4, "size": 16, "margin": 0.1,
}  # fmt: skip


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Sealed shards of 80 clips of 3 classes: subjects 1 to 4 train, of whom 2 validates."""
    folder = tmp_path_factory.mktemp("shards")
    clips = make_clips(80)
    rows = [_row(clips, i) for i in range(clips.size)]
    seal_rows(folder, rows, SETTINGS)
    return str(folder)


def _row(clips: Batch, i: int) -> dict[str, Any]:
    subject, action, setup = 1 + i % 5, 1 + int(clips.label[i]), 1 + i // 15
    frames = (clips.rgb[i] * 255).to(torch.uint8).permute(1, 2, 3, 0).numpy()
    joints = clips.skeleton[i].permute(1, 3, 2, 0).numpy()
    return {
        "clip_id": f"S{setup:03d}C001P{subject:03d}R001A{action:03d}",
        "setup": setup, "camera": 1, "subject": subject, "replication": 1, "action": action,
        "num_rgb_frames": 4, "num_skeleton_frames": 8, "rgb_fps": 15.0, "skeleton_fps": 30.0,
        "width": 16, "height": 16, "box": [0, 0, 16], "persons": 1, "flags": [],
        "rgb_index": np.arange(4, dtype=np.int32),
        "rgb": [frame.tobytes() for frame in frames],
        "skeleton_index": np.arange(8, dtype=np.int32),
        "skeleton": np.ascontiguousarray(joints, dtype=np.float32).reshape(8, -1),
        "present": clips.present[i].to(torch.uint8).numpy(),
    }  # fmt: skip


@pytest.fixture(scope="session")
def settings() -> Callable[..., Config]:
    """The whole configuration of a short run on `shards`, with dotted changes."""

    def make(**changes) -> Config:
        model = {k: v for k, v in MODEL.items() if k not in ("num_classes", "dropout")}
        base = from_dict(
            {
                "data": {
                    "protocol": "custom",
                    "custom": {"subjects": (1, 2, 3, 4)},
                    "val_subjects": (2,),
                },
                "model": model,
                "train": {
                    "epochs": 3,
                    "batch_size": 8,
                    "val_steps": 2,
                    "attack": {"steps": 3},
                    "stack_epochs": 1,
                },  # fmt: skip
                "ray": {"workers": 2},
            }
        )
        return apply_overrides(base, {k.replace("__", "."): v for k, v in changes.items()})

    return make


@pytest.fixture
def threat() -> ThreatModel:
    """The usual budgets: 8/255 in pixels, 0.05 m in joints."""
    return ThreatModel(rgb=Budget("Linf", 8 / 255), skeleton=Budget("Linf", 0.05))


@pytest.fixture
def model_config() -> dict[str, Any]:
    """What `save_checkpoint` wants for the tiny model."""
    model = {key: value for key, value in MODEL.items() if key != "num_classes"}
    return {"model": model, "num_classes": CLASSES, "classes": [1, 2, 3]}
