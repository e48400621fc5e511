"""HCN (Li et al., IJCAI 2018): convolutions that take joints as channels.

Two branches (position, motion); in each, point-level features are learned per joint, then the
joints become channels so that a 3x3 convolution mixes all of them. Persons meet by maximum.
"""

import torch
from torch import Tensor, nn

from components.errors import UserError
from components.models.backbones.backbone import SkeletonBackbone, scaled
from components.models.pooling import fold_persons, person_max, unfold_persons


class HCN(SkeletonBackbone):
    """Four stages: both branches up to conv4, conv5, conv6 with the person maximum, fc7.

    frames: length S of the skeleton clip, which is also the number of maps after conv2, as in the
        paper; a multiple of 16, for four poolings by 2.
    """

    motion = True

    def __init__(
        self, *, frames: int = 32, width: float = 1.0, joints: int = 25, dropout: float = 0.5
    ) -> None:
        super().__init__()
        if frames % 16:
            raise UserError(
                f"model.skeleton_frames={frames}: hcn pools four times by 2, so it must "
                "be a multiple of 16"
            )
        c = [scaled(n, width) for n in (64, 32, 64, 128, 256, 512)]
        self.channels = (2 * c[2], c[3], c[4], c[5])
        self.features = c[5]
        branches = (_Branch(frames, joints, c, dropout), _Branch(frames, joints, c, dropout))
        self.layers = nn.ModuleList(
            [
                _Branches(*branches),
                _Conv(2 * c[2], c[3], dropout),
                _ConvMax(c[3], c[4], dropout),
                _Dense(c[4] * (frames // 16) ** 2, c[5], dropout),
            ]
        )


class _Branch(nn.Module):
    def __init__(self, frames: int, joints: int, c: list[int], dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, c[0], 1)
        self.conv2 = nn.Conv2d(c[0], frames, (3, 1), padding=(1, 0))
        self.conv3 = nn.Conv2d(joints, c[1], 3, padding=1)
        self.conv4 = nn.Conv2d(c[1], c[2], 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(torch.relu(self.conv1(x)))  # [N, frames, S, V]
        x = self.pool(self.conv3(x.permute(0, 3, 2, 1)))  # joints are the channels now
        return self.pool(self.dropout(self.conv4(x)))


class _Branches(nn.Module):
    def __init__(self, position: nn.Module, change: nn.Module) -> None:
        super().__init__()
        self.position = position
        self.change = change

    def forward(self, skeleton: Tensor, real: Tensor) -> Tensor:
        """[B, 6, M, S, V] -> [B, C, M, S/4, frames/4]."""
        folded = fold_persons(skeleton)
        both = torch.cat([self.position(folded[:, :3]), self.change(folded[:, 3:])], 1)
        return unfold_persons(both, skeleton.shape[2])


class _Conv(nn.Module):
    def __init__(self, c_in: int, c: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c, 3, padding=1)
        self.dropout = nn.Dropout2d(dropout)
        self.pool = nn.MaxPool2d(2)

    def forward(self, skeleton: Tensor, real: Tensor) -> Tensor:
        folded = self.pool(self.dropout(torch.relu(self.conv(fold_persons(skeleton)))))
        return unfold_persons(folded, skeleton.shape[2])


class _ConvMax(_Conv):
    def forward(self, skeleton: Tensor, real: Tensor) -> Tensor:
        return person_max(super().forward(skeleton, real), real)


class _Dense(nn.Module):
    def __init__(self, c_in: int, c: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(c_in, c)
        self.dropout = nn.Dropout(dropout)

    def forward(self, skeleton: Tensor, real: Tensor) -> Tensor:
        dense = self.dropout(torch.relu(self.linear(skeleton.flatten(1))))
        return dense[:, :, None, None, None]
