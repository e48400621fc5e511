"""The order of clips: one permutation by (seed, epoch), cut among any number of workers."""

import numpy as np

from components.errors import UserError
from components.seeds import bits, clip_seeds


def epoch_batches(
    n: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    rank: int = 0,
    world: int = 1,
    start: int = 0,
) -> list[np.ndarray]:
    """Positions 0..n-1 for each step of one epoch, int64, for worker `rank` of `world`.

    The union over the workers of step k is the same for any `world`. Every clip comes up at least
    once: the last batch is filled up from the head of the same permutation. `start` leaves out
    the steps that a resumed epoch has done. A data set smaller than one batch is one batch.
    """
    size = min(batch_size, n)
    if n < 1 or batch_size < 1:
        raise UserError(f"need clips and a batch size, got {n} clips and batches of {batch_size}")
    if not 0 <= rank < world:
        raise UserError(f"rank {rank} is not one of {world} workers")
    if size < world:
        raise UserError(
            f"a batch of {size} clips cannot be cut among {world} workers; use fewer workers or "
            "a larger train.batch_size"
        )
    order = permutation(n, seed, epoch)
    steps = -(-n // size)
    filled = np.concatenate([order, order[: steps * size - n]])
    return [np.array_split(step, world)[rank] for step in filled.reshape(steps, size)[start:]]


def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of 0..n-1, int64, that depends on (seed, epoch) alone."""
    keys = bits(clip_seeds(seed, [f"epoch-{epoch}"], "order"), (n,))[0].numpy()
    return np.argsort(keys, kind="stable")


def fixed_batches(n: int, batch_size: int) -> list[np.ndarray]:
    """Positions 0..n-1 in order, each once; the last batch may be smaller."""
    return [np.arange(i, min(i + batch_size, n)) for i in range(0, n, batch_size)]
