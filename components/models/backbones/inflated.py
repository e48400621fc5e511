"""Inflated ResNet-50 for video, as MFAS and MMTM use on NTU (He et al. 2016; inflation: I3D 2017).

2D stem and 2D max-pooling, bottlenecks whose middle convolution is 3 x 3 x 3, no stride in time.
Names equal torchvision's 2D `resnet50`, so its ImageNet weights go in through
`pretrained.inflate`.
"""

from torch import Tensor, nn

from components.models.backbones.backbone import VideoBackbone, scaled, strided


class Bottleneck(nn.Module):
    """1x1x1, 3x3x3 (which carries the stride in space), 1x1x1 to four times the channels."""

    normalised = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))

    def __init__(self, c_in: int, c: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(c_in, c, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(c)
        self.conv2 = nn.Conv3d(c, c, 3, (1, stride, stride), 1, bias=False)
        self.bn2 = nn.BatchNorm3d(c)
        self.conv3 = nn.Conv3d(c, 4 * c, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(4 * c)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or c_in != 4 * c:
            self.downsample = nn.Sequential(
                nn.Conv3d(c_in, 4 * c, 1, (1, stride, stride), bias=False),
                nn.BatchNorm3d(4 * c),
            )

    def forward(self, video: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, C', T, H', W']."""
        shortcut = video if self.downsample is None else self.downsample(video)
        video = self.relu(self.bn1(self.conv1(video)))
        video = self.relu(self.bn2(self.conv2(video)))
        return self.relu(self.bn3(self.conv3(video)) + shortcut)


class InflatedResNet50(VideoBackbone):
    """Four layers of 3, 4, 6 and 3 bottlenecks."""

    normalised = (("conv1", "bn1"),)

    def __init__(self, *, width: float = 1.0, depths: tuple[int, ...] = (3, 4, 6, 3)) -> None:
        super().__init__()
        base = scaled(64, width)
        self.conv1 = nn.Conv3d(3, base, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(base)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.channels = tuple(4 * base * 2**i for i in range(len(depths)))
        self.features = self.channels[-1]
        c_in = base
        for i, depth in enumerate(depths):
            blocks = []
            for block in range(depth):
                blocks.append(Bottleneck(c_in, base * 2**i, strided(i, block)))
                c_in = self.channels[i]
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))

    @property
    def stages(self) -> list[nn.Module]:
        """layer1 .. layer4."""
        return [self.get_submodule(f"layer{i + 1}") for i in range(len(self.channels))]

    def begin(self, rgb: Tensor) -> Tensor:
        """Stem and pooling: [B, 3, T, H, W] -> [B, C, T, H/4, W/4]."""
        return self.maxpool(self.relu(self.bn1(self.conv1(rgb))))
