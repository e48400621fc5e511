"""Plausible motion: hold a perturbed skeleton to its bone lengths and to a change of acceleration.

Optional part of the threat model's projection. Both bounds are measured against the clean clip,
whose own sensor noise already breaks any absolute bound. First a few rounds of position-based
corrections (Mueller et al. 2007, "Position Based Dynamics") move the joints near both bounds at
little loss of perturbation; then one factor per person shrinks what is left until both hold.
"""

import torch
from torch import Tensor

from components.batch import BONES

MIN_BONE = 0.01  # metres; a relative bound on a bone of no length would freeze its joints
_OUTER, _INNER = [o for o, _ in BONES], [i for _, i in BONES]


def bones_of(skeleton: Tensor) -> Tensor:
    """Bone vectors [B, 3, S, 24, M] of joints [B, 3, S, V, M]."""
    return skeleton[:, :, :, _OUTER] - skeleton[:, :, :, _INNER]


def bone_change(clean: Tensor, skeleton: Tensor, present: Tensor) -> Tensor:
    """Largest relative change [B] of a bone's length over all frames and present persons."""
    before, after = bones_of(clean).norm(dim=1), bones_of(skeleton).norm(dim=1)
    change = (after - before).abs() / before.clamp(min=MIN_BONE)
    return (change * present[:, :, None]).flatten(1).amax(dim=1)


def acceleration_change(clean: Tensor, skeleton: Tensor, present: Tensor) -> Tensor:
    """Largest change [B] of a joint's acceleration, in the skeleton's unit per frame^2."""
    if skeleton.shape[2] < 3:
        return skeleton.new_zeros(skeleton.shape[0])
    return _second(skeleton - clean, present).norm(dim=1).flatten(1).amax(dim=1)


def _second(delta: Tensor, present: Tensor) -> Tensor:
    """Second differences [B, 3, S-2, V, M]; zero unless all three frames show the person."""
    run = present[:, 2:] & present[:, 1:-1] & present[:, :-2]
    return (delta[:, :, 2:] - 2 * delta[:, :, 1:-1] + delta[:, :, :-2]) * run[:, None, :, None]


def project_motion(
    clean: Tensor,
    skeleton: Tensor,
    present: Tensor,
    *,
    low: Tensor,
    high: Tensor,
    bone_length: float | None,
    acceleration: float | None,
    rounds: int = 8,
) -> Tensor:
    """A skeleton [B, 3, S, V, M] within the bounds and the box [low, high].

    The result is star-shaped around the clean clip: any further shrinking of a person's or a
    clip's whole perturbation keeps both bounds. Shapes as in `components.batch`.
    """
    x = skeleton
    for _ in range(rounds):
        if bone_length is not None:
            x = _pull_bones(clean, x, bone_length)
        if acceleration is not None and x.shape[2] >= 3:
            x = _smooth(clean, x, present, acceleration)
        x = torch.clamp(x, low, high)
    delta = x - clean
    factor = delta.new_ones(delta.shape[0], delta.shape[-1])
    # Slightly inside, so that rounding cannot carry the result over the bound.
    if bone_length is not None:
        factor = torch.minimum(factor, _bone_factor(clean, delta, present, bone_length * 0.999))
    if acceleration is not None and x.shape[2] >= 3:
        size = _second(delta, present).norm(dim=1).flatten(1, 2).amax(dim=1)
        factor = torch.minimum(factor, acceleration * 0.999 / size.clamp(min=1e-12))
    shrunk = clean + delta * factor[:, None, None, None, :]
    return torch.clamp(shrunk, low, high)


def _pull_bones(clean: Tensor, x: Tensor, tolerance: float) -> Tensor:
    """Move both ends of each bone by half of what its length is out of range (Jacobi)."""
    length = bones_of(clean).norm(dim=1, keepdim=True)
    slack = tolerance * length.clamp(min=MIN_BONE)
    bone = bones_of(x)
    now = bone.norm(dim=1, keepdim=True)
    wanted = torch.minimum(torch.maximum(now, (length - slack).clamp(min=0)), length + slack)
    move = bone * (0.5 * (wanted - now) / now.clamp(min=1e-9))
    outer = torch.tensor(_OUTER, device=x.device)
    inner = torch.tensor(_INNER, device=x.device)
    return x.index_add(3, outer, move).index_add(3, inner, move, alpha=-1.0)


def _smooth(clean: Tensor, x: Tensor, present: Tensor, bound: float) -> Tensor:
    """Spread what exceeds the acceleration bound over the three frames that make it."""
    second = _second(x - clean, present)
    size = second.norm(dim=1, keepdim=True)
    excess = second * (1.0 - bound / size.clamp(min=1e-12)).clamp(min=0)
    # The least change of (before, middle, after) that removes it is (-1, 2, -1) / 6; half of
    # that, because each frame takes part in three such runs at once.
    moved = x.clone()
    moved[:, :, 1:-1] += excess / 6
    moved[:, :, 2:] -= excess / 12
    moved[:, :, :-2] -= excess / 12
    return moved


def _bone_factor(clean: Tensor, delta: Tensor, present: Tensor, tolerance: float) -> Tensor:
    """Largest s [B, M] such that every bone holds along the whole way from 0 to s * delta.

    |b + s d|^2 = limit^2 is a quadratic in s; the way ends at its smallest positive root.
    """
    bone, change = bones_of(clean).double(), bones_of(delta).double()
    length = bone.norm(dim=1)
    slack = tolerance * length.clamp(min=MIN_BONE)
    a = change.square().sum(dim=1)
    b = (bone * change).sum(dim=1)
    largest = torch.ones_like(a)
    for limit, upper in ((length + slack, True), ((length - slack).clamp(min=0), False)):
        c = length.square() - limit.square()
        root = b.square() - a * c
        real = root.clamp(min=0).sqrt()
        # Above: c < 0, the positive root. Below: c > 0 and b < 0, the smaller root, if any.
        if upper:
            s = -c / (b + real).clamp(min=1e-30)
        else:
            s = torch.where((root > 0) & (b < 0), c / (-b + real).clamp(min=1e-30), _far(c))
        largest = torch.minimum(largest, s)
    largest = torch.where(present[:, :, None], largest, torch.ones_like(largest))
    return largest.flatten(1, 2).amin(dim=1).to(delta.dtype)


def _far(like: Tensor) -> Tensor:
    return torch.full_like(like, 1.0)
