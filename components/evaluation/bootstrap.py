"""Several seeds of one recipe as one figure: mean, spread, and an interval over seeds and clips."""

import statistics
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from components.errors import UserError

DRAWS = 2000
CHUNK = 200  # draws at once, so that many clips need little memory


def over_seeds(rows: ArrayLike, *, seed: int = 0) -> dict[str, Any]:
    """The mean of [seeds, clips] with a 95 % bootstrap interval over both.

    rows: one row a seed, the same clips in the same order: verdicts (0 or 1) of one model, or
    differences (-1, 0, 1) of two models that share seed and clip, which makes the interval paired.
    Seeds and clips are drawn with replacement, so the interval tells what other seeds and other
    clips might have given; with a few seeds the former is rough, and with one seed it is left
    out. `std` is that of the seeds' means, None for one seed.
    """
    table = np.asarray(rows, dtype=np.float64)
    if table.ndim != 2 or not table.size:
        raise UserError(f"expected one row of clips a seed, got an array {list(table.shape)}")
    seeds, clips = table.shape
    generator = np.random.default_rng(seed)
    means = []
    for start in range(0, DRAWS, CHUNK):
        draws = min(CHUNK, DRAWS - start)
        by_seed = generator.multinomial(seeds, [1 / seeds] * seeds, size=draws) / seeds
        by_clip = generator.multinomial(clips, [1 / clips] * clips, size=draws) / clips
        means.append(((by_clip @ table.T) * by_seed).sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    each = table.mean(axis=1).tolist()
    return {
        "value": float(table.mean()),
        "std": statistics.stdev(each) if seeds > 1 else None,
        "low": float(low),
        "high": float(high),
        "per_seed": each,
        "n": clips,
    }
