"""Bounds on motion against a second implementation, in plain loops over persons, frames, bones."""

import numpy as np
import pytest
import torch

from components.attacks.plausible import acceleration_change, bone_change, project_motion
from components.batch import BONES

LEAST = 0.01  # metres: bones shorter than this are measured as if they had this length


def clips(frames: int, seed: int = 0, reach: float = 0.06):
    """(clean, moved, present), of three clips; some bones have no length, some persons are away."""
    draw = np.random.default_rng(seed)
    clean = 0.2 * draw.standard_normal((3, 3, frames, 25, 2))
    clean[0, :, :, 3] = clean[0, :, :, 2]  # a head in the neck
    clean[0, :, :, 5] = clean[0, :, :, 4] + 0.004
    present = np.ones((3, frames, 2), dtype=bool)
    present[0, 0, 1] = present[1, -1, 0] = False
    clean *= present[:, None, :, None, :]
    moved = clean + reach * draw.standard_normal(clean.shape) * present[:, None, :, None, :]
    return clean, moved, present


def tensors(*arrays):
    return [torch.tensor(a, dtype=None if a.dtype == bool else torch.float32) for a in arrays]


def size(vectors):
    return np.sqrt((vectors**2).sum(0))


def bent(change, present):
    """Second differences of [3, S, V], 0 where one of the three frames does not show the person."""
    found = np.zeros_like(change)
    for s in range(1, change.shape[1] - 1):
        if present[s - 1] and present[s] and present[s + 1]:
            found[:, s] = change[:, s + 1] - 2 * change[:, s] + change[:, s - 1]
    return found  # at the frame in the middle


def corrected(clean, x, tolerance):
    """Both ends of every bone go half the way to the nearest length allowed, all at once."""
    out = x.copy()
    for outer, inner in BONES:
        length, bone = (
            size(clean[:, :, outer] - clean[:, :, inner]),
            x[:, :, outer] - x[:, :, inner],
        )
        slack = tolerance * np.maximum(length, LEAST)
        now = size(bone)
        wanted = np.clip(now, np.maximum(length - slack, 0), length + slack)
        half = bone * (wanted - now) / np.maximum(now, 1e-9) / 2
        out[:, :, outer] += half
        out[:, :, inner] -= half
    return out


def smoothed(clean, x, present, bound):
    """Half of the least change of three frames, (-1, 2, -1) / 6, that takes off the excess."""
    second, out = bent(x - clean, present), x.copy()
    excess = second * np.maximum(1 - bound / np.maximum(size(second), 1e-12), 0)
    out += excess / 6
    out[:, 1:] -= excess[:, :-1] / 12
    out[:, :-1] -= excess[:, 1:] / 12
    return out


def furthest(clean, change, present, tolerance):
    """How far along `change` every bone keeps its length on the whole way, at 2001 places."""
    share = np.linspace(0, 1, 2001)
    best = 1.0
    for outer, inner in BONES:
        bone, way = (a[:, present, outer] - a[:, present, inner] for a in (clean, change))
        length = size(bone)
        slack = tolerance * np.maximum(length, LEAST)
        off = np.abs(size(bone[..., None] + way[..., None] * share) - length[:, None])
        out = (off > slack[:, None] + 1e-9).any(0)
        if out.any():
            best = min(best, share[max(out.argmax() - 1, 0)])
    return best


def projected(clean, moved, present, low, high, bone_length, acceleration):
    """One person [3, S, V] after 8 rounds and the last shrinking."""
    x, long = moved, clean.shape[1] >= 3
    for _ in range(8):
        if bone_length:
            x = corrected(clean, x, bone_length)
        if acceleration and long:
            x = smoothed(clean, x, present, acceleration)
        x = np.clip(x, low, high)
    change, factor = x - clean, 1.0
    if bone_length:
        factor = min(factor, furthest(clean, change, present, 0.999 * bone_length))
    if acceleration and long:
        most = size(bent(change, present)).max()
        factor = min(factor, 0.999 * acceleration / max(most, 1e-12))
    return np.clip(clean + factor * change, low, high)


@pytest.mark.parametrize("frames", [2, 3, 6])
@pytest.mark.parametrize(
    ("bone_length", "acceleration"), [(0.3, None), (None, 0.03), (0.2, 0.05), (0.02, 5.0)]
)
def test_a_clip_is_brought_into_its_bounds_as_the_reference_does(
    frames, bone_length, acceleration
) -> None:
    clean, moved, present = clips(frames)
    mask = present[:, None, :, None, :]
    low, high = clean - 0.05 * mask, clean + 0.05 * mask
    found = project_motion(
        *tensors(clean, moved, present), low=tensors(low)[0], high=tensors(high)[0],
        bone_length=bone_length, acceleration=acceleration,
    )  # fmt: skip
    for b in range(3):
        for m in range(2):
            one = (b, slice(None), slice(None), slice(None), m)
            expected = projected(
                clean[one], moved[one], present[b, :, m], low[one], high[one],
                bone_length, acceleration,
            )  # fmt: skip
            # The reference tries places 1/2000 of the way apart.
            assert np.abs(found[one].numpy() - expected).max() < 0.05 / 1500


def test_what_a_bone_and_an_acceleration_changed_by_is_the_largest_of_all() -> None:
    clean, moved, present = clips(6)
    given = tensors(clean, moved, present)
    bones, bends = bone_change(*given), acceleration_change(*given)
    for b in range(3):
        stretched, curved = 0.0, 0.0
        for m in range(2):
            at = present[b, :, m]
            for outer, inner in BONES:
                before, after = (
                    size(x[b, :, at, outer, m].T - x[b, :, at, inner, m].T) for x in (clean, moved)
                )
                stretched = max(stretched, (abs(after - before) / np.maximum(before, LEAST)).max())
            curved = max(curved, size(bent((moved - clean)[b, ..., m], at)).max())
        assert float(bones[b]) == pytest.approx(stretched, rel=1e-4)
        assert float(bends[b]) == pytest.approx(curved, rel=1e-4)
