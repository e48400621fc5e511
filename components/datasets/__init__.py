"""Shards to batches: split, order of clips, sampling in time, paired augmentation, prefetch."""

from components.datasets.dataset import ClipDataset
from components.datasets.loader import BatchLoader
from components.datasets.order import epoch_batches, fixed_batches
from components.datasets.split import Split, describe, select_split

__all__ = [
    "BatchLoader",
    "ClipDataset",
    "Split",
    "describe",
    "epoch_batches",
    "fixed_batches",
    "select_split",
]
