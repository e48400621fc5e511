"""From sealed shards to one worker's batches: its part of every global batch, and of validation."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from components.batch import Batch
from components.config import Config, to_dict
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
STACK_BATCH = 32  # clips of one step on the held-out clips, over all workers
PREFETCH = 2


@dataclass(frozen=True)
class ShardData:
    """The clips of worker `rank` of `world`; see `loop.TrainData`."""

    dataset: ClipDataset
    validated: ClipDataset
    stacked: ClipDataset
    batch_size: int
    seed: int
    rank: int
    world: int
    device: str

    def steps(self) -> int:
        """Optimiser steps of one epoch."""
        return -(-len(self.dataset) // self.global_size)

    @property
    def global_size(self) -> int:
        """Clips of one step over all workers; every step is full."""
        return min(self.batch_size, len(self.dataset))

    def train(self, epoch: int) -> Iterator[tuple[Batch, int]]:
        """This worker's part of each global batch, loaded ahead, and the global batch's size."""
        return self._pass_over(self.dataset, self.batch_size, epoch)

    def held_out_steps(self) -> int:
        """Optimiser steps of one pass over all validation clips."""
        return -(-len(self.stacked) // min(STACK_BATCH, len(self.stacked)))

    def held_out(self, epoch: int) -> Iterator[tuple[Batch, int]]:
        """As `train`, of all validation clips, which are not augmented."""
        return self._pass_over(self.stacked, STACK_BATCH, epoch)

    def _pass_over(
        self, clips: ClipDataset, batch_size: int, epoch: int
    ) -> Iterator[tuple[Batch, int]]:
        batches = epoch_batches(
            len(clips), batch_size, seed=self.seed, epoch=epoch, rank=self.rank, world=self.world
        )
        loader = BatchLoader(clips, batches, epoch=epoch, device=self.device, prefetch=PREFETCH)
        for batch in loader:
            yield batch, min(batch_size, len(clips))

    def validation(self) -> Iterator[Batch]:
        """This worker's validation clips, unchanged, always in the same order."""
        yield from BatchLoader(
            self.validated,
            fixed_batches(len(self.validated), VALIDATION_BATCH),
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
        ClipDataset.for_model, shards, classes=split.classes, model=to_dict(config.model)
    )
    train = make(split.train, augment=Ranges() if config.train.augment else None, seed=config.seed)
    mine = validation_rows(split.val, config.train.val_clips, config.seed)[rank::world]
    data = ShardData(
        train,
        make(mine),
        make(split.val),
        config.train.batch_size,
        config.seed,
        rank,
        world,
        device,
    )
    return data, split.classes


def validation_rows(rows: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """All validation rows, or `limit` of them drawn once for the whole run; rising."""
    if not limit or limit >= len(rows):
        return rows
    return np.sort(rows[permutation(len(rows), seed, -1)[:limit]])
