"""CTR-GCN (Chen et al., ICCV 2021): a graph topology refined for every channel and sample."""

import torch
from torch import Tensor, nn

from components.models.backbones.backbone import SkeletonBackbone, scaled, strided
from components.models.backbones.graph import directed_subsets
from components.models.backbones.stgcn import PersonStage, normalise_joints


class CTRGCN(SkeletonBackbone):
    """Ten layers in three stages of 64, 128 and 256 channels; stride 2 in time between stages."""

    motion = False

    def __init__(self, *, width: float = 1.0, joints: int = 25) -> None:
        super().__init__()
        base = scaled(64, width, 16)
        self.channels = (base, 2 * base, 4 * base)
        self.features = self.channels[-1]
        self.data_bn = nn.BatchNorm1d(3 * joints)
        stages = []
        c_in = 3
        for i, (c, depth) in enumerate(zip(self.channels, (4, 3, 3), strict=True)):
            layers = []
            for layer in range(depth):
                layers.append(
                    _Layer(c_in, c, strided(i, layer), residual=not (i == 0 and layer == 0))
                )
                c_in = c
            stages.append(PersonStage(layers))
        self.layers = nn.ModuleList(stages)

    def begin(self, skeleton: Tensor) -> Tensor:
        """Batch-normalise each coordinate of each joint of [B, C, M, S, V]; shape kept."""
        return normalise_joints(self.data_bn, skeleton)


class _Layer(nn.Module):
    def __init__(self, c_in: int, c: int, stride: int, residual: bool) -> None:
        super().__init__()
        self.graph = _GraphUnit(c_in, c)
        self.time = _MultiScale(c, stride)
        self.residual: nn.Module | None = None
        if residual:
            same = stride == 1 and c_in == c
            self.residual = nn.Identity() if same else _conv_bn(c_in, c, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, S, V] -> [N, C', S', V]."""
        out = self.time(self.graph(x))
        return torch.relu(out if self.residual is None else out + self.residual(x))


class _GraphUnit(nn.Module):
    """The sum of three refined graph convolutions over shared learned adjacencies, eq. 5-8."""

    def __init__(self, c_in: int, c: int) -> None:
        super().__init__()
        subsets = directed_subsets()
        self.convs = nn.ModuleList(_Refined(c_in, c) for _ in subsets)
        self.adjacency = nn.Parameter(subsets)
        self.alpha = nn.Parameter(torch.zeros(1))
        self.bn = nn.BatchNorm2d(c)
        # Near zero: at the start the unit is its shortcut.
        nn.init.constant_(self.bn.weight, 1e-6)
        self.shortcut = nn.Identity() if c_in == c else _conv_bn(c_in, c)

    def forward(self, x: Tensor) -> Tensor:
        parts = [conv(x, self.adjacency[k], self.alpha) for k, conv in enumerate(self.convs)]
        return torch.relu(self.bn(torch.stack(parts).sum(0)) + self.shortcut(x))


class _Refined(nn.Module):
    """Channel-wise topology A + alpha * W tanh(q_u - k_v), applied to transformed features."""

    def __init__(self, c_in: int, c: int) -> None:
        super().__init__()
        relation = 8 if c_in == 3 else c_in // 8
        self.query = nn.Conv2d(c_in, relation, 1)
        self.key = nn.Conv2d(c_in, relation, 1)
        self.value = nn.Conv2d(c_in, c, 1)
        self.expand = nn.Conv2d(relation, c, 1)

    def forward(self, x: Tensor, adjacency: Tensor, alpha: Tensor) -> Tensor:
        query, key = self.query(x).mean(2), self.key(x).mean(2)  # [N, R, V]
        relation = torch.tanh(query.unsqueeze(3) - key.unsqueeze(2))
        topology = self.expand(relation) * alpha + adjacency  # [N, C, V, V]
        return torch.einsum("ncuv,ncsv->ncsu", topology.to(x.dtype), self.value(x))


class _MultiScale(nn.Module):
    """Four branches over time: dilations 1 and 2, a maximum, and a plain 1x1."""

    def __init__(self, c: int, stride: int, kernel: int = 5) -> None:
        super().__init__()
        part = c // 4
        branches: list[nn.Module] = [
            nn.Sequential(
                _conv_bn(c, part),
                nn.ReLU(inplace=True),
                _conv_bn(part, part, kernel=kernel, stride=stride, dilation=dilation),
            )
            for dilation in (1, 2)
        ]
        branches.append(
            nn.Sequential(
                _conv_bn(c, part),
                nn.ReLU(inplace=True),
                nn.MaxPool2d((3, 1), (stride, 1), (1, 0)),
                nn.BatchNorm2d(part),
            )
        )
        branches.append(_conv_bn(c, part, stride=stride))
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def _conv_bn(
    c_in: int, c: int, *, kernel: int = 1, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    padding = (kernel + (kernel - 1) * (dilation - 1) - 1) // 2
    conv = nn.Conv2d(c_in, c, (kernel, 1), (stride, 1), (padding, 0), (dilation, 1))
    return nn.Sequential(conv, nn.BatchNorm2d(c))
