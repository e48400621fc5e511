"""What changes over a run: learning rate, eps and steps, as plain functions of the position.

Functions of the position hold no state, so a resumed run has nothing to restore here.
"""

import math

import torch

from components.attacks import CELLS
from components.seeds import clip_seeds, uniform

MIX = {"rgb": 0.25, "skeleton": 0.25, "both": 0.5}
WARMUP = 0.3  # share of a one-cycle run in which the rate rises


def lr_factor(done: float) -> float:
    """Factor on the peak learning rate when the share `done` in [0, 1] of the run is over.

    One cycle: cosine up from 1/25 over the first 30 %, cosine down to 1e-4 (Smith & Topin,
    arXiv 1708.07120, as usually implemented). It needs no choice of when to decay, and the runs
    here are short.
    """
    if done < WARMUP:
        return _cosine(1.0 / 25.0, 1.0, done / WARMUP)
    return _cosine(1.0, 1e-4, (done - WARMUP) / (1.0 - WARMUP))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0)))


def eps_factor(epoch: int, epochs: int, ramp: float) -> float:
    """Factor on eps in `epoch` (from 0): linear up to 1 over the share `ramp` of all epochs.

    A curriculum of budgets (Cai et al., arXiv 1805.04807). From the full budget at once the stream
    that is harder to learn may never begin to (`docs/training.md`).
    """
    return min(1.0, (epoch + 1) / (math.floor(ramp * epochs) + 1))


def draw_cell(modalities: str, seed: int, epoch: int, step: int) -> str:
    """The modalities attacked in one step: fixed, or with "mix" drawn with the weights of `MIX`
    from (seed, epoch, step) alone, so that all workers draw the same.
    """
    if modalities != "mix":
        return modalities
    seeds = clip_seeds(seed, [f"{epoch}/{step}"], "train mix")
    draw = float(uniform(seeds, (1,)))
    for name, weight in MIX.items():
        draw -= weight
        if draw < 0:
            return name
    return CELLS[-1]


def epoch_seed(seed: int, epoch: int) -> int:
    """The attack's run seed in one epoch: every epoch starts from other points of the ball."""
    return _word(seed, f"{epoch}", "train epoch")


def seed_step(seed: int, epoch: int, step: int, rank: int) -> None:
    """Seed torch's global generators (dropout) for one step: no random state needs saving."""
    torch.manual_seed(_word(seed, f"{epoch}/{step}/{rank}", "train dropout"))


def _word(seed: int, name: str, purpose: str) -> int:
    low, high = clip_seeds(seed, [name], purpose)[0].tolist()
    return low | (high & 0x7FFFFFFF) << 32
