"""Random numbers that depend on (run seed, clip, purpose) alone: not on batch, worker or device.

A counter-based generator: element j of clip i is a hash of (seed of clip i, j). So one worker
and eight draw the same noise for a clip, a resumed run draws what the lost one drew, and it
all runs on the device in a few integer operations without a host sync.
Mixer: the 32-bit finaliser "lowbias32" (C. Wellons, 2018), twice with different keys, in int32
arithmetic that wraps around, which gives the same bits on CPU and GPU and runs in vector units.
"""

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def clip_seeds(
    seed: int, clip_ids: Sequence[str], purpose: str, device: torch.device | str = "cpu"
) -> Tensor:
    """Seeds int64 [B, 2] (two 32-bit words a clip), a hash of the run seed, clip id and purpose."""
    words = []
    for clip_id in clip_ids:
        digest = hashlib.blake2b(f"{seed}/{clip_id}/{purpose}".encode(), digest_size=8).digest()
        words.append((int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")))
    return torch.tensor(words, dtype=torch.int64).reshape(-1, 2).to(device)


def _mix_(x: Tensor) -> Tensor:
    """A bijection of 32-bit words held in int32, in place; the masks make its shifts logical."""
    x ^= (x >> 16).bitwise_and_(0xFFFF)
    x *= 0x7FEB352D
    x ^= (x >> 15).bitwise_and_(0x1FFFF)
    x *= 0x846CA68B - (1 << 32)
    x ^= (x >> 16).bitwise_and_(0xFFFF)
    return x


def words(seeds: Tensor, count: int, stream: int = 0) -> Tensor:
    """32 random bits as int32 [B, count] from seeds [B, 2]; `stream` separates several draws."""
    low, high = (seeds - (seeds >> 31 << 32)).to(torch.int32).split(1, 1)
    counter = torch.arange(count, dtype=torch.int32, device=seeds.device)
    mixed = _mix_(counter + _mix_(low + _int32(stream * 0x9E3779B9)))
    return _mix_(mixed.bitwise_xor_(high))


def _int32(value: int) -> int:
    """The low 32 bits of a number, as int32 holds them."""
    return ((value + (1 << 31)) & _MASK) - (1 << 31)


def bits(seeds: Tensor, shape: Sequence[int], stream: int = 0) -> Tensor:
    """`words` as int64 [B, *shape] in [0, 2**32)."""
    drawn = words(seeds, math.prod(shape), stream).to(torch.int64).bitwise_and_(_MASK)
    return drawn.reshape(seeds.shape[0], *shape)


def uniform(seeds: Tensor, shape: Sequence[int], stream: int = 0) -> Tensor:
    """float32 [B, *shape] in [0, 1), with 24 random bits each."""
    return (bits(seeds, shape, stream) >> 8).to(torch.float32) * (1.0 / (1 << 24))


def normal(seeds: Tensor, shape: Sequence[int], stream: int = 0) -> Tensor:
    """Standard normal float32 [B, *shape] (Box-Muller)."""
    radius = uniform(seeds, shape, 2 * stream + 1_000_001)
    angle = uniform(seeds, shape, 2 * stream + 1_000_002)
    # 1 - u lies in (0, 1], so the logarithm stays finite.
    return torch.sqrt(-2.0 * torch.log1p(-radius)) * torch.cos(2.0 * math.pi * angle)


def integers(seeds: Tensor, high: int, shape: Sequence[int], stream: int = 0) -> Tensor:
    """int64 [B, *shape] in [0, high); the bias is below high / 2**32."""
    return (bits(seeds, shape, stream) * high) >> 32
