"""From sealed shards to one worker's batches: its part of every global batch, and of validation."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from components.batch import Batch
from components.config import Config
from components.datasets import (
    BatchLoader,
    ClipDataset,
    Split,
    epoch_batches,
    fixed_batches,
    select_split,
)
from components.datasets.augment import Ranges
from components.datasets.order import permutation
from components.errors import UserError
from components.shards import ShardSet

VALIDATION_BATCH = 64
PREFETCH = 2


@dataclass(frozen=True)
class ShardData:
    """The clips of worker `rank` of `world`; see `loop.TrainData`."""

    dataset: ClipDataset
    held_out: ClipDataset
    batch_size: int
    seed: int
    rank: int = 0
    world: int = 1
    device: str = "cpu"

    def steps(self) -> int:
        """Optimiser steps of one epoch."""
        return -(-len(self.dataset) // self.global_size)

    @property
    def global_size(self) -> int:
        """Clips of one step over all workers; every step is full."""
        return min(self.batch_size, len(self.dataset))

    def train(self, epoch: int) -> Iterator[tuple[Batch, int]]:
        """This worker's part of each global batch, loaded ahead, and the global batch's size."""
        batches = epoch_batches(
            len(self.dataset),
            self.batch_size,
            seed=self.seed,
            epoch=epoch,
            rank=self.rank,
            world=self.world,
        )
        loader = BatchLoader(
            self.dataset, batches, epoch=epoch, device=self.device, prefetch=PREFETCH
        )
        for batch in loader:
            yield batch, self.global_size

    def validation(self) -> Iterator[Batch]:
        """This worker's validation clips, unchanged, always in the same order."""
        yield from BatchLoader(
            self.held_out,
            fixed_batches(len(self.held_out), VALIDATION_BATCH),
            device=self.device,
            prefetch=PREFETCH,
        )


def open_split(config: Config, shards_at: str, *, verify: bool = True) -> tuple[ShardSet, Split]:
    """The shards and the protocol's split; ValueError or ShardError when they do not serve."""
    shards = ShardSet.open(shards_at, cache_gb=config.shard.cache_gb, verify=verify)
    split = select_split(shards, config.data)
    if not len(split.val):
        raise UserError(
            "the validation split is empty, and the best checkpoint is chosen on it; name "
            "training subjects in data.val_subjects (or setups in data.val_setups)"
        )
    return shards, split


def open_data(
    config: Config, shards_at: str, *, rank: int = 0, world: int = 1, device: str = "cpu"
) -> tuple[ShardData, list[int]]:
    """One worker's data and the run's classes (action numbers); the driver has checked hashes."""
    shards, split = open_split(config, shards_at, verify=False)
    make = partial(
        ClipDataset,
        shards,
        classes=split.classes,
        rgb_frames=config.model.rgb_frames,
        rgb_size=config.model.rgb_size,
        skeleton_frames=config.model.skeleton_frames,
    )
    train = make(split.train, augment=Ranges() if config.train.augment else None, seed=config.seed)
    mine = validation_rows(split.val, config.train.val_clips, config.seed)[rank::world]
    data = ShardData(train, make(mine), config.train.batch_size, config.seed, rank, world, device)
    return data, split.classes


def validation_rows(rows: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """All validation rows, or `limit` of them drawn once for the whole run; rising."""
    if not limit or limit >= len(rows):
        return rows
    return np.sort(rows[permutation(len(rows), seed, -1)[:limit]])
