"""First layer of every model: raw inputs (pixels in [0, 1], metres) to the networks' scale.

It lies inside the model and is differentiable, so an attacker's budget is in raw units and the
gradient runs through it. Values of absent persons and frames are masked before anything is
computed from them: no value there changes the output and no gradient reaches it.
"""

import torch
from torch import Tensor, nn

from components.errors import UserError

KINETICS_MEAN = (0.43216, 0.394666, 0.37645)
KINETICS_STD = (0.22803, 0.22145, 0.216989)
SPINE_MID, LEFT_SHOULDER, RIGHT_SHOULDER = 1, 4, 8


class VideoNormalize(nn.Module):
    """(x - mean) / std per colour channel, with the statistics the published weights expect."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: tuple[float, ...] = KINETICS_MEAN, std: tuple[float, ...] = KINETICS_STD
    ) -> None:
        super().__init__()
        shape = (1, 3, 1, 1, 1)
        self.register_buffer("mean", torch.tensor(mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(shape), persistent=False)

    def forward(self, rgb: Tensor) -> Tensor:
        """[B, 3, T, H, W] in [0, 1] -> the same shape, about zero mean and unit spread."""
        return (rgb - self.mean).div_(self.std)


class SkeletonNormalize(nn.Module):
    """Centre, optionally rotate, optionally add motion.

    centre: "body" or "spine", of the first tracked person in the first frame with anybody: the
        mean of all its joints or the middle of its spine is the origin of the whole clip and of
        both persons, so that where they are to each other and how they walk stays visible.
        "spine" is the practice on NTU, but lets an attacker who moves this one joint by eps move
        all others by eps against it; a mean of 25 dilutes that.
    rotate: turn the clip about the vertical axis until that person's shoulders lie along x.
    motion: append the change since the previous frame, 0 where either frame is not tracked.
    """

    def __init__(self, *, centre: str = "body", rotate: bool = False, motion: bool = True) -> None:
        super().__init__()
        if centre not in ("body", "spine"):
            raise UserError(f"centre={centre!r}: choose body or spine")
        self.centre = centre
        self.rotate = rotate
        self.motion = motion

    def forward(self, skeleton: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, S, V, M] and bool [B, S, M] -> map [B, 3 or 6, M, S, V] and real [B, M]."""
        # As large as the skeleton and in its layout: `where` is several times faster so.
        skeleton = skeleton.contiguous()
        tracked = present[:, None, :, None, :].expand_as(skeleton).contiguous()
        skeleton = torch.where(tracked, skeleton, 0.0)
        body = _first_tracked(skeleton, present)  # [B, 3, V]
        origin = body.mean(2) if self.centre == "body" else body[:, :, SPINE_MID]
        skeleton = skeleton - origin[:, :, None, None, None]
        if self.rotate:
            skeleton = _turn(skeleton, body)
        skeleton = torch.where(tracked, skeleton, 0.0)
        if self.motion:
            both = tracked[:, :, 1:] & tracked[:, :, :-1]
            change = torch.where(both, skeleton[:, :, 1:] - skeleton[:, :, :-1], 0.0)
            change = torch.cat([torch.zeros_like(change[:, :, :1]), change], 2)
            skeleton = torch.cat([skeleton, change], 1)
        real = present.any(1)
        return _fill_absent(skeleton.permute(0, 1, 4, 2, 3), real), real.to(skeleton.dtype)


def _fill_absent(skeleton: Tensor, real: Tensor) -> Tensor:
    """Copies of the clip's real person in the slot of an absent one.

    Their features are masked out wherever persons meet; a copy there, rather than zeros, keeps the
    batch statistics of BatchNorm those of real bodies. [B, C, M, S, V], real bool [B, M], M <= 2.
    """
    if real.shape[1] == 1:
        return skeleton
    skeleton = skeleton.contiguous()
    return torch.where(real[:, None, :, None, None], skeleton, skeleton.flip(2))


def _first_tracked(skeleton: Tensor, present: Tensor) -> Tensor:
    """Joints [B, 3, V] of the first person in the first frame; zeros where nobody ever is."""
    first = present.flatten(1).to(torch.uint8).argmax(1)  # the first of the frame-major order
    bodies = skeleton.transpose(3, 4).flatten(2, 3)  # [B, 3, S * M, V]
    index = first[:, None, None, None].expand(-1, 3, 1, bodies.shape[3])
    return bodies.gather(2, index).squeeze(2)


def _turn(skeleton: Tensor, body: Tensor) -> Tensor:
    """Rotate about y so that left to right shoulder points along x; unchanged without a body."""
    across = body[:, :, RIGHT_SHOULDER] - body[:, :, LEFT_SHOULDER]
    x, z = across[:, 0], across[:, 2]
    length = x.square() + z.square()
    known = length > 1e-6
    scale = torch.where(known, length, 1.0).rsqrt()
    cos = torch.where(known, x * scale, 1.0)[:, None, None, None]
    sin = torch.where(known, z * scale, 0.0)[:, None, None, None]
    old_x, y, old_z = skeleton.unbind(1)
    return torch.stack([cos * old_x + sin * old_z, y, cos * old_z - sin * old_x], 1)
