"""How feature maps become vectors, and how absent persons are kept out of them.

Video maps are [B, C, T, H, W]; skeleton maps are [B, C, M, S, V] with time and joints as far as the
stage before has shrunk them. `real` [B, M] is 1 for a person tracked in any frame of the clip, else
0. A map whose persons a stage has merged has M = 1 and counts as real where anybody is.
"""

import torch
from torch import Tensor


def video_mean(video: Tensor) -> Tensor:
    """Mean over time and space: [B, C, T, H, W] -> [B, C]."""
    return video.mean((2, 3, 4))


def person_mean(skeleton: Tensor, real: Tensor) -> Tensor:
    """Mean over time, joints and the real persons: [B, C, M, S, V] -> [B, C]; 0 without any."""
    persons = skeleton.mean((3, 4))
    real = _match_slots(skeleton, real).to(persons.dtype).unsqueeze(1)
    return (persons * real).sum(2) / real.sum(2).clamp(min=1)


def video_parts(video: Tensor, parts: int) -> Tensor:
    """Means of consecutive parts of time, side by side: [B, C, T, H, W] -> [B, parts * C]."""
    return video_mean(video) if parts == 1 else _in_parts(video.mean((3, 4)), parts)


def person_parts(skeleton: Tensor, real: Tensor, parts: int) -> Tensor:
    """`video_parts` over joints and real persons: [B, C, M, S, V] -> [B, parts * C]."""
    if parts == 1:
        return person_mean(skeleton, real)
    frames = skeleton.mean(4)
    real = _match_slots(skeleton, real).to(frames.dtype)
    mean = (frames * real[:, None, :, None]).sum(2) / real.sum(1).clamp(min=1)[:, None, None]
    return _in_parts(mean, parts)


def _in_parts(frames: Tensor, parts: int) -> Tensor:
    """[B, C, T] -> [B, parts * C]; parts that do not divide T share the frames between them.

    Slices rather than adaptive pooling, whose gradient on GPUs is not the same in every run.
    """
    length = frames.shape[2]
    spans = [(i * length // parts, -(-(i + 1) * length // parts)) for i in range(parts)]
    return torch.cat([frames[:, :, start:end].mean(2) for start, end in spans], 1)


def person_max(skeleton: Tensor, real: Tensor) -> Tensor:
    """Maximum over the real persons: [B, C, M, S, V] -> [B, C, 1, S, V]; 0 without any."""
    absent = (_match_slots(skeleton, real) <= 0)[:, None, :, None, None]
    highest = skeleton.masked_fill(absent, float("-inf")).amax(2, keepdim=True)
    nobody = absent.all(2, keepdim=True)
    return highest.masked_fill(nobody, 0.0)


def _match_slots(skeleton: Tensor, real: Tensor) -> Tensor:
    """`real` for the map's own persons: [B, M], or [B, 1] (anybody) where they are merged."""
    return real if skeleton.shape[2] == real.shape[1] else real.amax(1, keepdim=True)


def fold_persons(skeleton: Tensor) -> Tensor:
    """[B, C, M, S, V] -> [B * M, C, S, V]: each person is a sample of its own."""
    return skeleton.transpose(1, 2).flatten(0, 1)


def unfold_persons(folded: Tensor, persons: int) -> Tensor:
    """The inverse of `fold_persons`: [B * M, C, S, V] -> [B, C, M, S, V]."""
    return folded.unflatten(0, (-1, persons)).transpose(1, 2)


def gate(feature_map: Tensor, gates: Tensor) -> Tensor:
    """Scale the channels of a map [B, C, ...] by gates [B, C], broadcast over the other axes."""
    shape = gates.shape + (1,) * (feature_map.dim() - 2)
    return feature_map * gates.to(feature_map.dtype).view(shape)


def stacked(vectors: list[Tensor]) -> Tensor:
    """Vectors [B, C_i] side by side, in float32, in which a fusion's small layers run: [B, C]."""
    return torch.cat([vector.float() for vector in vectors], 1)
