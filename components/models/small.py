"""The two small backbones: what runs on CPU cores and in tests, one for each modality.

Convolutions are factorised into space and time, and the stride comes early. BatchNorm costs next to
nothing in eval mode, which is the mode every attack runs in.
"""

from torch import Tensor, nn

from components.models.pooling import fold_persons, person_mean, unfold_persons, video_mean


def _widths(base: tuple[int, ...], width: float) -> tuple[int, ...]:
    return tuple(max(8, int(round(c * width / 8)) * 8) for c in base)


class SmallVideo(nn.Module):
    """Four stages of (1,3,3) then (3,1,1) convolutions for about 8 frames of 48 x 48 pixels."""

    def __init__(self, *, width: float = 1.0) -> None:
        super().__init__()
        self.channels = _widths((16, 32, 64, 128), width)
        self.features = self.channels[-1]
        stages = []
        c_in = 3
        for i, c in enumerate(self.channels):
            time_stride = 2 if i in (1, 2) else 1
            stages.append(_video_stage(c_in, c, space_stride=2 if i < 3 else 1, time=time_stride))
            c_in = c
        self.stages = nn.ModuleList(stages)

    def begin(self, rgb: Tensor) -> Tensor:
        """What comes before the first stage: nothing."""
        return rgb

    def pool(self, video: Tensor) -> Tensor:
        """Last map [B, C, T, H, W] -> features [B, C]."""
        return video_mean(video)


def _video_stage(c_in: int, c: int, space_stride: int, time: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(c_in, c, (1, 3, 3), (1, space_stride, space_stride), (0, 1, 1), bias=False),
        nn.BatchNorm3d(c),
        nn.ReLU(inplace=True),
        nn.Conv3d(c, c, (3, 1, 1), (time, 1, 1), (1, 0, 0), bias=False),
        nn.BatchNorm3d(c),
        nn.ReLU(inplace=True),
    )


class SmallSkeleton(nn.Module):
    """Temporal convolutions over all joints at once; each person on its own until the pooling."""

    def __init__(self, *, width: float = 1.0, joints: int = 25, motion: bool = True) -> None:
        super().__init__()
        self.motion = motion
        self.channels = _widths((64, 64, 128), width)
        self.features = self.channels[-1]
        inputs = joints * (6 if motion else 3)
        stages = []
        for i, c in enumerate(self.channels):
            stages.append(_SkeletonStage(inputs if i == 0 else self.channels[i - 1], c, stride=2))
        self.stages = nn.ModuleList(stages)

    def begin(self, skeleton: Tensor) -> Tensor:
        """[B, C, M, S, V] -> [B, C * V, M, S, 1]: the joints become channels."""
        return skeleton.permute(0, 1, 4, 2, 3).flatten(1, 2).unsqueeze(4)

    def pool(self, skeleton: Tensor, real: Tensor) -> Tensor:
        """Last map [B, C, M, S, V] and real [B, M] -> features [B, C]."""
        return person_mean(skeleton, real)


class _SkeletonStage(nn.Module):
    def __init__(self, c_in: int, c: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c, (3, 1), (stride, 1), (1, 0), bias=False)
        self.norm = nn.GroupNorm(8, c)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, skeleton: Tensor, real: Tensor) -> Tensor:
        persons = skeleton.shape[2]
        return unfold_persons(self.relu(self.norm(self.conv(fold_persons(skeleton)))), persons)
