"""Random numbers that depend on (run seed, clip, purpose) alone: not on batch, worker or device.

A counter-based generator: element j of clip i is a hash of (seed of clip i, j). So one worker
and eight draw the same noise for a clip, a resumed run draws what the lost one drew, and it
all runs on the device in a few integer operations without a host sync.
Mixer: the 32-bit finaliser "lowbias32" (C. Wellons, 2018), twice with different keys, in int64
arithmetic masked to 32 bits, which gives the same bits on CPU and GPU.
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


def _mix(x: Tensor) -> Tensor:
    """A bijection of 32-bit words held in int64. The products stay below 2**63 by splitting."""
    x = x ^ (x >> 16)
    x = _mul32(x, 0x7FEB352D)
    x = x ^ (x >> 15)
    x = _mul32(x, 0x846CA68B)
    return x ^ (x >> 16)


def _mul32(x: Tensor, factor: int) -> Tensor:
    # x < 2**32 and factor < 2**32 could overflow int64, so multiply by the two 16-bit halves.
    low = x * (factor & 0xFFFF)
    high = ((x * (factor >> 16)) & 0xFFFF) << 16
    return (low + high) & _MASK


def bits(seeds: Tensor, shape: Sequence[int], stream: int = 0) -> Tensor:
    """32 random bits as int64 [B, *shape] from seeds [B, 2]; `stream` separates several draws."""
    count = math.prod(shape)
    counter = torch.arange(count, dtype=torch.int64, device=seeds.device)
    key0 = _mix((seeds[:, :1] + _mix_int(stream)) & _MASK)
    words = _mix(_mix((counter + key0) & _MASK) ^ seeds[:, 1:])
    return words.reshape(seeds.shape[0], *shape)


def _mix_int(stream: int) -> int:
    return (stream * 0x9E3779B9) & _MASK


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
