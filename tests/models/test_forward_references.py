"""Forward passes of the backbones against second implementations, written from the papers.

The references read the weights by their published names and use plain functions or loops.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from components.models.backbones.ctrgcn import _Refined
from components.models.backbones.hcn import HCN
from components.models.backbones.stgcn import STGCN
from components.models.backbones.video_resnet import mc3_18, r2plus1d_18, r3d_18

State = dict[str, Tensor]


def _shaken(net: torch.nn.Module) -> State:
    """Give BatchNorm statistics and weights other values than 0 and 1, so that mix-ups show."""
    random = torch.Generator().manual_seed(1)
    state = net.state_dict()
    for name, value in state.items():
        if value.is_floating_point() and value.dim() == 1:
            low = 0.5 if name.endswith(("var", "weight")) else -0.2
            value.copy_(low + torch.rand(value.shape, generator=random))
    net.load_state_dict(state)
    return {name: value.clone() for name, value in state.items()}


def _bn(x: Tensor, w: State, name: str) -> Tensor:
    mean, var = w[f"{name}.running_mean"], w[f"{name}.running_var"]
    return F.batch_norm(x, mean, var, w[f"{name}.weight"], w[f"{name}.bias"])


def _conv3d(x: Tensor, weight: Tensor, stride: tuple[int, int, int]) -> Tensor:
    padding = tuple(k // 2 for k in weight.shape[2:])
    return F.conv3d(x, weight, None, stride, padding)


@pytest.mark.parametrize(("make", "kind"), [(r3d_18, "3d"), (mc3_18, "mc"), (r2plus1d_18, "2+1")])
def test_video_resnets_follow_their_published_structure(make, kind: str) -> None:
    torch.manual_seed(0)
    net = make(width=0.125, num_classes=7).eval()
    w = _shaken(net)
    rgb = torch.rand(2, 3, 8, 32, 32)
    if kind == "2+1":
        x = _bn(_conv3d(rgb, w["stem.0.weight"], (1, 2, 2)), w, "stem.1").relu()
        x = _bn(_conv3d(x, w["stem.3.weight"], (1, 1, 1)), w, "stem.4").relu()
    else:
        x = _bn(_conv3d(rgb, w["stem.0.weight"], (1, 2, 2)), w, "stem.1").relu()
    for layer in (1, 2, 3, 4):
        for block in (0, 1):
            at = f"layer{layer}.{block}"
            s = 2 if layer > 1 and block == 0 else 1
            in_time = 1 if kind == "mc" else s
            y = x
            for conv, stride in (("conv1", s), ("conv2", 1)):
                name = f"{at}.{conv}"
                if kind == "2+1":
                    y = _conv3d(y, w[f"{name}.0.0.weight"], (1, stride, stride))
                    y = _bn(y, w, f"{name}.0.1").relu()
                    y = _conv3d(y, w[f"{name}.0.3.weight"], (stride, 1, 1))
                else:
                    time = 1 if kind == "mc" else stride
                    y = _conv3d(y, w[f"{name}.0.weight"], (time, stride, stride))
                y = _bn(y, w, f"{name}.1")
                y = y.relu() if conv == "conv1" else y
            if s == 2:
                x = _conv3d(x, w[f"{at}.downsample.0.weight"], (in_time, 2, 2))
                x = _bn(x, w, f"{at}.downsample.1")
            x = (x + y).relu()
    expected = x.mean((2, 3, 4)) @ w["fc.weight"].T + w["fc.bias"]
    found = net(rgb)
    assert found.std() > 0
    assert torch.allclose(found, expected, atol=1e-3, rtol=1e-4)


def test_hcn_follows_the_paper() -> None:
    torch.manual_seed(0)
    net = HCN(frames=16, width=0.25).eval()
    w = net.state_dict()
    clip = torch.randn(1, 6, 2, 16, 25)

    def conv(x: Tensor, name: str, padding: tuple[int, int]) -> Tensor:
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=padding)

    persons = []
    for m in (0, 1):
        branches = []
        for name, part in (("position", clip[:, :3, m]), ("change", clip[:, 3:, m])):
            at = f"layers.0.{name}"
            x = conv(conv(part, f"{at}.conv1", (0, 0)).relu(), f"{at}.conv2", (1, 0))
            x = x.permute(0, 3, 2, 1)  # the 25 joints are now the channels
            assert x.shape == (1, 25, 16, 16)
            x = F.max_pool2d(conv(x, f"{at}.conv3", (1, 1)), 2)
            branches.append(F.max_pool2d(conv(x, f"{at}.conv4", (1, 1)), 2))
        x = torch.cat(branches, 1)
        for layer in (1, 2):
            x = F.max_pool2d(conv(x, f"layers.{layer}.conv", (1, 1)).relu(), 2)
        persons.append(x)
    merged = torch.maximum(*persons).flatten(1)
    expected = (merged @ w["layers.3.linear.weight"].T + w["layers.3.linear.bias"]).relu()
    real, x = torch.ones(1, 2), net.begin(clip)
    for stage in net.stages:
        x = stage(x, real)
    assert torch.allclose(net.pool(x, real), expected, atol=1e-5)


def test_stgcn_layer_sums_over_weighted_neighbours() -> None:
    torch.manual_seed(0)
    layer = STGCN(width=0.125).layers[0].layers[1].eval()  # 8 -> 8 channels, with a shortcut
    torch.nn.init.uniform_(layer.importance, 0.5, 1.5)
    w = {k: v.double().numpy() for k, v in layer.state_dict().items()}
    x = torch.randn(1, 8, 5, 25)
    edges = layer.adjacency.double().numpy() * w["importance"]
    data = x[0].double().numpy()
    mixed = np.zeros((8, 5, 25))
    for k in range(3):
        weight = w["graph.weight"][8 * k : 8 * k + 8, :, 0, 0]
        moved = (
            np.einsum("oc,ctv->otv", weight, data) + w["graph.bias"][8 * k : 8 * k + 8, None, None]
        )
        for v in range(25):
            for u in range(25):
                mixed[:, :, v] += edges[k, u, v] * moved[:, :, u]
    with torch.no_grad():
        after = layer.time(torch.from_numpy(mixed).float()[None])
        expected = torch.relu(after + x)
        assert torch.allclose(layer(x), expected, atol=1e-4)


def test_ctrgcn_refines_the_topology_channel_by_channel() -> None:
    torch.manual_seed(0)
    conv = _Refined(16, 6)
    x, adjacency, alpha = torch.randn(2, 16, 4, 25), torch.randn(25, 25), torch.tensor(0.3)
    with torch.no_grad():
        found = conv(x, adjacency, alpha)
        query, key, value = conv.query(x).mean(2), conv.key(x).mean(2), conv.value(x)
        expand, bias = conv.expand.weight[:, :, 0, 0], conv.expand.bias
        for n, u in ((0, 3), (1, 20)):
            expected = torch.zeros(6, 4)
            for v in range(25):
                relation = torch.tanh(query[n, :, u] - key[n, :, v])
                edge = alpha * (expand @ relation + bias) + adjacency[u, v]
                expected += edge[:, None] * value[n, :, :, v]
            assert torch.allclose(found[n, :, :, u], expected, atol=1e-4)
