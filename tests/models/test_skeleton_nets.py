"""Skeleton backbones: the papers' sizes, the body graph, and persons that are not there."""

import pytest
import torch
from torch import Tensor

from components.batch import BONES
from components.models.backbones.backbone import SkeletonBackbone
from components.models.backbones.ctrgcn import CTRGCN
from components.models.backbones.graph import directed_subsets, spatial_partition
from components.models.backbones.hcn import HCN
from components.models.backbones.small import SmallSkeleton
from components.models.backbones.stgcn import STGCN
from components.models.pooling import person_max, person_mean

NETS = {
    "small": lambda: SmallSkeleton(width=0.25),
    "hcn": lambda: HCN(frames=16, width=0.25),
    "stgcn": lambda: STGCN(width=0.125),
    "ctrgcn": lambda: CTRGCN(width=0.25),
}


def _features(net: SkeletonBackbone, skeleton: Tensor, real: Tensor) -> Tensor:
    x = net.begin(skeleton)
    for stage, channels in zip(net.stages, net.channels, strict=True):
        x = stage(x, real)
        assert x.dim() == 5 and x.shape[1] == channels
    return net.pool(x, real)


def _count(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name", NETS)
def test_persons_may_swap_places_and_absent_ones_do_not_count(name: str) -> None:
    torch.manual_seed(0)
    net = NETS[name]().eval()
    x = torch.randn(3, 6 if net.motion else 3, 2, 16, 25)
    real = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    out = _features(net, x, real)
    assert out.shape == (3, net.features) and out.abs().sum() > 0
    assert torch.allclose(out, _features(net, x.flip(2), real.flip(1)), atol=1e-5)
    changed = torch.where(real[:, None, :, None, None] > 0, x, torch.randn_like(x))
    assert torch.allclose(out, _features(net, changed, real), atol=1e-6)
    alone = _features(net, x[1:2, :, :1], real[1:2, :1])
    assert torch.allclose(out[1:2], alone, atol=1e-5)


def test_sizes_of_the_papers() -> None:
    # HCN, layer by layer for S = 32: two branches, conv5, conv6, fc7 of 256 * 2 * 2 -> 512.
    branch = (3 * 64 + 64) + (64 * 32 * 3 + 32) + (25 * 32 * 9 + 32) + (32 * 64 * 9 + 64)
    after = (128 * 128 * 9 + 128) + (128 * 256 * 9 + 256) + (1024 * 512 + 512)
    assert _count(HCN(frames=32)) == 2 * branch + after
    # With their classifiers: ST-GCN 3.1 M for 60 classes, CTR-GCN 1.46 M for 120.
    assert round((_count(STGCN()) + 257 * 60) / 1e6, 1) == 3.1
    assert round((_count(CTRGCN()) + 257 * 120) / 1e6, 2) == 1.46


def test_hcn_maps_have_the_known_shapes_for_32_frames() -> None:
    net = HCN(frames=32).eval()
    x, real, shapes = torch.randn(1, 6, 2, 32, 25), torch.ones(1, 2), []
    for stage in net.stages:
        x = stage(x, real)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(128, 2, 8, 8), (128, 2, 4, 4), (256, 1, 2, 2), (512, 1, 1, 1)]
    with pytest.raises(ValueError, match="multiple of 16"):
        HCN(frames=20)


def test_the_body_is_one_tree_of_25_joints() -> None:
    assert len(BONES) == 24 and sorted(outer for outer, _ in BONES) == [
        joint for joint in range(25) if joint != 20
    ]
    inner = dict(BONES)
    for joint in range(25):  # every joint leads to the centre
        steps = 0
        while joint != 20:
            joint, steps = inner[joint], steps + 1
        assert steps <= 6
    assert inner[7] == 6 and inner[24] == 11 and inner[3] == 2  # hand, thumb, head


def test_adjacencies_are_normalised_by_column() -> None:
    whole = spatial_partition().sum(0)
    assert torch.allclose(whole.sum(0), torch.ones(25))
    degree = torch.ones(25)
    for outer, inner in BONES:
        degree[outer] += 1
        degree[inner] += 1
    assert torch.allclose(whole.diagonal(), 1 / degree)
    root, near, far = spatial_partition()
    assert torch.equal(root, torch.diag(root.diagonal()))
    assert near[20, 1] > 0 and near[1, 20] == 0 and far[1, 20] > 0
    own, inward, outward = directed_subsets()
    assert torch.equal(own, torch.eye(25))
    assert inward.sum(0).tolist() == [0.0 if v == 20 else 1.0 for v in range(25)]
    assert torch.allclose(outward.sum(0), (outward > 0).any(0).float())


def test_pooling_over_nobody_is_zero_and_has_no_gradient() -> None:
    x = torch.randn(2, 4, 2, 3, 5, requires_grad=True)
    real = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    mean, high = person_mean(x, real), person_max(x, real)
    assert not mean[0].any() and not high[0].any()
    assert torch.allclose(mean[1], x[1, :, 0].mean((1, 2)))
    assert torch.equal(high[1, :, 0], x[1, :, 0])
    (gradient,) = torch.autograd.grad(mean.sum() + high.sum(), x)
    assert not gradient[0].any() and not gradient[1, :, 1].any() and gradient[1, :, 0].any()
