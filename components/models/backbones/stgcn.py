"""ST-GCN (Yan et al., AAAI 2018): graph convolution over joints, then convolution over time."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from components.models.backbones.backbone import SkeletonBackbone, scaled, strided
from components.models.backbones.graph import spatial_partition
from components.models.pooling import fold_persons, unfold_persons


class STGCN(SkeletonBackbone):
    """Ten layers in three stages of 64, 128 and 256 channels; stride 2 in time between stages."""

    motion = False

    def __init__(self, *, width: float = 1.0, joints: int = 25, dropout: float = 0.0) -> None:
        super().__init__()
        base = scaled(64, width)
        self.channels = (base, 2 * base, 4 * base)
        self.features = self.channels[-1]
        self.data_bn = nn.BatchNorm1d(3 * joints)
        stages = []
        c_in = 3
        for i, (c, depth) in enumerate(zip(self.channels, (4, 3, 3), strict=True)):
            layers = []
            for layer in range(depth):
                residual = not (i == 0 and layer == 0)
                layers.append(_Layer(c_in, c, strided(i, layer), residual, dropout))
                c_in = c
            stages.append(PersonStage(layers))
        self.layers = nn.ModuleList(stages)

    def begin(self, skeleton: Tensor) -> Tensor:
        """Batch-normalise each coordinate of each joint of [B, C, M, S, V]; shape kept."""
        return normalise_joints(self.data_bn, skeleton)


def normalise_joints(norm: nn.BatchNorm1d, skeleton: Tensor) -> Tensor:
    """BatchNorm over the C * V values of a frame: [B, C, M, S, V] -> the same shape."""
    b, c, m, s, v = skeleton.shape
    flat = skeleton.permute(0, 2, 4, 1, 3).reshape(b * m, v * c, s)
    return norm(flat).view(b, m, v, c, s).permute(0, 3, 1, 4, 2)


class PersonStage(nn.Module):
    """Layers over [N, C, S, V] applied to every person by itself."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, skeleton: Tensor, real: Tensor) -> Tensor:
        """[B, C, M, S, V] -> [B, C', M, S', V]."""
        return unfold_persons(self.layers(fold_persons(skeleton)), skeleton.shape[2])


class _Layer(nn.Module):
    """One graph convolution with learned edge importance and one temporal convolution of 9."""

    adjacency: Tensor

    def __init__(
        self, c_in: int, c: int, stride: int, residual: bool, dropout: float, kernel: int = 9
    ) -> None:
        super().__init__()
        adjacency = spatial_partition()
        self.register_buffer("adjacency", adjacency, persistent=False)
        self.importance = nn.Parameter(torch.ones_like(adjacency))
        self.graph = nn.Conv2d(c_in, c * adjacency.shape[0], 1)
        self.time = nn.Sequential(
            nn.BatchNorm2d(c),
            nn.ReLU(inplace=True),
            nn.Conv2d(c, c, (kernel, 1), (stride, 1), ((kernel - 1) // 2, 0)),
            nn.BatchNorm2d(c),
            nn.Dropout(dropout),
        )
        self.residual: nn.Module | None = None
        if residual:
            self.residual = nn.Identity()
            if stride != 1 or c_in != c:
                self.residual = nn.Sequential(nn.Conv2d(c_in, c, 1, (stride, 1)), nn.BatchNorm2d(c))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, S, V] -> [N, C', S', V]."""
        edges = (self.adjacency * self.importance).to(x.dtype)
        subsets = self.graph(x).unflatten(1, (edges.shape[0], -1))
        mixed = torch.einsum("nkcsu,kuv->ncsv", subsets, edges)
        out = self.time(mixed)
        return torch.relu(out if self.residual is None else out + self.residual(x))
