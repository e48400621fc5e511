"""A tiny two-stream model and clips that can be learned: shared by the tests of training."""

from collections.abc import Callable, Iterable

import pytest
import torch

from components.batch import JOINTS, PERSONS, Batch
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
    "amr": {"heads": 2, "width": 8, "temperature": 1.0},
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
        self.clips, self.held_out, self.size = train, validation, size
        self.rank, self.world = rank, world

    def steps(self) -> int:
        return -(-self.clips.size // self.size)

    def train(self, epoch: int) -> Iterable[tuple[Batch, int]]:
        order = torch.randperm(self.clips.size, generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(self.size):
            yield self.clips.select(rows[self.rank :: self.world]), len(rows)

    def validation(self) -> Iterable[Batch]:
        order = torch.arange(self.held_out.size)
        return [self.held_out.select(order[self.rank :: self.world])]


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
        base = {"epochs": 2, "batch_size": 8, "val_steps": 2, "attack": {"steps": 2}}
        return TrainSection.model_validate({**base, **changes})

    return make


@pytest.fixture
def fresh() -> Callable[..., TrainState]:
    """A new state of the tiny model, the same weights each time."""

    def make(train: TrainSection, seed: int = 0) -> TrainState:
        torch.manual_seed(seed)
        model = build_model(MODEL)
        return new_state(model, lr=train.lr, weight_decay=train.weight_decay, ema=train.ema)

    return make
