"""R3D-18, MC3-18 and R(2+1)D-18 (Tran et al., CVPR 2018) with torchvision's names and shapes.

Parameters and buffers are called and shaped as in `torchvision.models.video`, so its published
Kinetics-400 weights load from a file (`pretrained.py`). Layout: a stem, then layer1..layer4 of two
residual blocks each.
"""

from collections.abc import Callable

from torch import Tensor, nn

from components.models.backbones.backbone import VideoBackbone, scaled, strided


def _full(c_in: int, c_out: int, middle: int, stride: int) -> nn.Module:
    return nn.Conv3d(c_in, c_out, 3, stride, 1, bias=False)


def _spatial(c_in: int, c_out: int, middle: int, stride: int) -> nn.Module:
    return nn.Conv3d(c_in, c_out, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)


def _two_plus_one(c_in: int, c_out: int, middle: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(c_in, middle, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False),
        nn.BatchNorm3d(middle),
        nn.ReLU(inplace=True),
        nn.Conv3d(middle, c_out, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False),
    )


Conv = Callable[[int, int, int, int], nn.Module]


class Block(nn.Module):
    """Two convolutions and a shortcut; `middle` gives (2+1)D as many weights as 3D would have."""

    def __init__(self, conv: Conv, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        middle = (c_in * c_out * 27) // (c_in * 9 + 3 * c_out)
        self.conv1 = nn.Sequential(
            conv(c_in, c_out, middle, stride), nn.BatchNorm3d(c_out), nn.ReLU(inplace=True)
        )
        self.conv2 = nn.Sequential(conv(c_out, c_out, middle, 1), nn.BatchNorm3d(c_out))
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or c_in != c_out:
            steps = (1, stride, stride) if conv is _spatial else (stride, stride, stride)
            self.downsample = nn.Sequential(
                nn.Conv3d(c_in, c_out, 1, steps, bias=False), nn.BatchNorm3d(c_out)
            )

    def forward(self, video: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, C', T', H', W']."""
        shortcut = video if self.downsample is None else self.downsample(video)
        return self.relu(self.conv2(self.conv1(video)) + shortcut)


class VideoResNet(VideoBackbone):
    """The common frame of the three networks: a convolution maker for each of the four layers.

    num_classes: 0 leaves the classifier `fc` out, as inside a two-stream model.
    """

    def __init__(
        self,
        convs: tuple[Conv, Conv, Conv, Conv],
        *,
        width: float = 1.0,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        base = scaled(64, width)
        self.channels = (base, 2 * base, 4 * base, 8 * base)
        self.features = self.channels[-1]
        self.stem = _stem(base, split=convs[0] is _two_plus_one)
        c_in = base
        for i, (conv, c) in enumerate(zip(convs, self.channels, strict=True)):
            blocks = [Block(conv, c_in, c, strided(i, 0)), Block(conv, c, c, 1)]
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            c_in = c
        self.fc = nn.Linear(self.features, num_classes) if num_classes else None

    @property
    def stages(self) -> list[nn.Module]:
        """layer1 .. layer4."""
        return [self.get_submodule(f"layer{i}") for i in (1, 2, 3, 4)]

    def begin(self, rgb: Tensor) -> Tensor:
        """The stem: [B, 3, T, H, W] -> [B, C, T, H/2, W/2]."""
        return self.stem(rgb)

    def forward(self, rgb: Tensor) -> Tensor:
        """Normalised video [B, 3, T, H, W] -> logits [B, K], or features [B, C] without `fc`."""
        video = self.begin(rgb)
        for stage in self.stages:
            video = stage(video)
        features = self.pool(video)
        return features if self.fc is None else self.fc(features)


def _stem(base: int, *, split: bool) -> nn.Sequential:
    if not split:
        return nn.Sequential(
            nn.Conv3d(3, base, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
            nn.BatchNorm3d(base),
            nn.ReLU(inplace=True),
        )
    middle = 45  # torchvision's number, whatever the width
    return nn.Sequential(
        nn.Conv3d(3, middle, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
        nn.BatchNorm3d(middle),
        nn.ReLU(inplace=True),
        nn.Conv3d(middle, base, (3, 1, 1), (1, 1, 1), (1, 0, 0), bias=False),
        nn.BatchNorm3d(base),
        nn.ReLU(inplace=True),
    )


def r3d_18(*, width: float = 1.0, num_classes: int = 0) -> VideoResNet:
    """3D convolutions everywhere."""
    return VideoResNet((_full, _full, _full, _full), width=width, num_classes=num_classes)


def mc3_18(*, width: float = 1.0, num_classes: int = 0) -> VideoResNet:
    """3D convolutions in layer1, then per-frame 2D."""
    return VideoResNet((_full, _spatial, _spatial, _spatial), width=width, num_classes=num_classes)


def r2plus1d_18(*, width: float = 1.0, num_classes: int = 0) -> VideoResNet:
    """Every 3D convolution split into space and time."""
    return VideoResNet((_two_plus_one,) * 4, width=width, num_classes=num_classes)
