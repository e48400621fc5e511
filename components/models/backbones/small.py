"""The two small backbones: what runs on CPU cores and in tests, one for each modality.

Convolutions are factorised into space and time and the stride comes early. BatchNorm, because it
is free in eval mode, the mode of every attack, and because under adversarial training GroupNorm
nets of this size learn several times slower (docs/models.md).
"""

import torch
from torch import Tensor, nn

from components.models.backbones.backbone import SkeletonBackbone, VideoBackbone, scaled
from components.models.pooling import fold_persons, unfold_persons


class SmallVideo(VideoBackbone):
    """Four stages for about 8 frames of 48 x 48 pixels; from the second, space then time."""

    def __init__(self, *, width: float = 1.0, kernel: int = 5) -> None:
        super().__init__()
        self.channels = tuple(scaled(c, width) for c in (16, 32, 64, 128))
        self.features = self.channels[-1]
        first, *rest = self.channels
        self.layers = nn.ModuleList([_space(3, first, kernel, stride=2)])
        for c_in, c, stride in zip(self.channels, rest, (2, 2, 1), strict=False):
            self.layers.append(nn.Sequential(_space(c_in, c, 3, stride), _time(c, stride)))

    def begin(self, rgb: Tensor) -> Tensor:
        """[B, 3, T, H, W], channels last in memory, on which CPU convolutions are faster."""
        return rgb.contiguous(memory_format=torch.channels_last_3d)


def _space(c_in: int, c: int, kernel: int, stride: int) -> nn.Sequential:
    steps, padding = (1, stride, stride), (0, kernel // 2, kernel // 2)
    conv = nn.Conv3d(c_in, c, (1, kernel, kernel), steps, padding, bias=False)
    return nn.Sequential(conv, nn.BatchNorm3d(c), nn.ReLU(inplace=True))


def _time(c: int, stride: int) -> nn.Sequential:
    conv = nn.Conv3d(c, c, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False)
    return nn.Sequential(conv, nn.BatchNorm3d(c), nn.ReLU(inplace=True))


class SmallSkeleton(SkeletonBackbone):
    """Three temporal convolutions over all joints of a person at once."""

    def __init__(self, *, width: float = 1.0, joints: int = 25, motion: bool = True) -> None:
        super().__init__()
        self.motion = motion
        self.channels = tuple(scaled(c, width) for c in (64, 64, 128))
        self.features = self.channels[-1]
        inputs = (joints * (6 if motion else 3), *self.channels)
        self.layers = nn.ModuleList(
            _PersonConv(c_in, c, stride)
            for c_in, c, stride in zip(inputs, self.channels, (1, 2, 2), strict=False)
        )

    def begin(self, skeleton: Tensor) -> Tensor:
        """[B, C, M, S, V] -> [B, C * V, M, S, 1]: the joints become channels."""
        return skeleton.permute(0, 1, 4, 2, 3).flatten(1, 2).unsqueeze(4)


class _PersonConv(nn.Module):
    normalised = (("conv", "norm"),)

    def __init__(self, c_in: int, c: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c, (3, 1), (stride, 1), (1, 0), bias=False)
        self.norm = nn.BatchNorm2d(c)

    def forward(self, skeleton: Tensor, real: Tensor) -> Tensor:
        folded = torch.relu(self.norm(self.conv(fold_persons(skeleton))))
        return unfold_persons(folded, skeleton.shape[2])
