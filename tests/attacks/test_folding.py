"""Folding: the same function, the same input gradients, and a model that shows no trace of it."""

import pytest
import torch
from torch import nn

from components.attacks import frozen
from components.attacks.folding import _few_channels, _FewChannels, conv_norm_pairs, folded
from components.batch import logits_of
from components.evaluation.cost import count_passes
from components.models import build_model

NETS = [
    ("small_video", "small_skeleton", "concat", 10),
    ("r3d_18", "hcn", "concat", 20),
    ("mc3_18", "stgcn", "concat", 32),
    ("r2plus1d_18", "ctrgcn", "concat", 102),
    ("inflated_resnet50", "small_skeleton", "concat", 56),
]


def model_of(rgb: str, skeleton: str, fusion: str) -> nn.Module:
    """In float64, with batch statistics that are not those of the start."""
    torch.manual_seed(0)
    names = {"rgb": rgb, "skeleton": skeleton, "fusion": fusion}
    width = {"width": 0.125, "num_classes": 4, "skeleton_frames": 16}
    model = build_model({**names, **width}).double().train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0.0, 0.2)
            module.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.2)
    return model


def clips(size: int = 16) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(1)
    rgb = torch.rand((2, 3, 4, size, size), generator=draw, dtype=torch.float64)
    skeleton = torch.randn((2, 3, 16, 25, 2), generator=draw, dtype=torch.float64)
    present = torch.ones((2, 16, 2), dtype=torch.bool)
    present[0, :, 1] = False
    return rgb, skeleton * present[:, None, :, None, :], present


def logits_and_grads(net, rgb, skeleton, present) -> tuple[torch.Tensor, ...]:
    leaves = [x.clone().requires_grad_(True) for x in (rgb, skeleton)]
    logits = logits_of(net(*leaves, present))
    score = (logits * torch.arange(1.0, 5.0, dtype=logits.dtype)).sum()
    return logits.detach(), *torch.autograd.grad(score, leaves)


@pytest.mark.parametrize(("rgb", "skeleton", "fusion", "pairs"), NETS)
def test_every_backbone_has_the_same_outputs_and_gradients(rgb, skeleton, fusion, pairs):
    model, batch = model_of(rgb, skeleton, fusion), clips()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    with frozen(model) as net:
        assert len(conv_norm_pairs(net)) == pairs
        plain = logits_and_grads(net, *batch)
        with folded(net):
            assert not conv_norm_pairs(net), "nothing is folded twice"
            assert {"forward"} <= set().union(*(m.__dict__ for m in net.modules()))
            inside = logits_and_grads(net, *batch)
        after = logits_and_grads(net, *batch)
    for there, here, back in zip(plain, inside, after, strict=True):
        assert here.shape == there.shape and float(there.abs().max()) > 0
        torch.testing.assert_close(here, there, rtol=1e-7, atol=1e-10)
        assert torch.equal(there, back)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any("forward" in m.__dict__ for m in model.modules())


@pytest.mark.parametrize("kernel", [(1, 5, 5), (3, 7, 7), (1, 3, 5), (3, 1, 9)])
@pytest.mark.parametrize("size", [(8, 12), (6, 6), (7, 8)])
def test_gradient_of_the_first_convolution_for_any_kernel_and_size(kernel, size):
    torch.manual_seed(0)
    padding = tuple(k // 2 for k in kernel)
    conv = nn.Conv3d(3, 5, kernel, (1, 2, 2), padding).double().requires_grad_(False)
    x = torch.rand((2, 3, 4, *size), dtype=torch.float64, requires_grad=True)
    plain = conv(x)
    way = torch.rand_like(plain)
    (expected,) = torch.autograd.grad(plain, x, way)
    with folded(conv):
        assert conv.forward.func is _few_channels
        out = conv(x)
        assert (type(out.grad_fn).__name__ == f"{_FewChannels.__name__}Backward") == (size[0] != 7)
        (found,) = torch.autograd.grad(out, x, way)
    assert torch.equal(out, plain)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_under_bf16_the_gradient_points_the_same_way():
    model, (rgb, skeleton, present) = model_of(*NETS[0][:3]).float(), clips(48)
    batch = (rgb.float(), skeleton.float(), present)
    with frozen(model) as net:
        exact = logits_and_grads(net, *batch)
        with torch.autocast("cpu", torch.bfloat16):
            plain = logits_and_grads(net, *batch)
            with folded(net):
                inside = logits_and_grads(net, *batch)
    for true, there, here in zip(exact, plain, inside, strict=True):
        assert here.dtype == there.dtype
        assert float((here.sign() == true.sign()).float().mean()) > 0.95
        assert float((here - true).norm()) < 0.2 * float(true.norm())


class Odd(nn.Module):
    """Everything that must be left alone: shared, hooked, undeclared, without statistics."""

    normalised = (("shared", "one"), ("shared", "two"), ("bare", "local"))

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.one, self.two = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.BatchNorm2d(2)
        self.twin = self.shared
        self.bare, self.local = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2, track_running_stats=False)
        self.conv, self.bn = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)  # not declared
        self.watched = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
        self.watched[0].register_forward_hook(lambda *_: None)
        self.apart = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.BatchNorm2d(2))


def test_what_is_no_clear_pair_stays_as_it_is():
    model = Odd().eval()
    assert not conv_norm_pairs(model)
    pair = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
    assert not conv_norm_pairs(pair.train()) and len(conv_norm_pairs(pair.eval())) == 1
    with folded(lambda rgb, skeleton, present: rgb):
        pass


def test_passes_are_still_counted_and_an_error_unfolds():
    model, batch = model_of(*NETS[0][:3]), clips()
    with pytest.raises(RuntimeError, match="stop"), frozen(model) as net, folded(net):
        with count_passes(net) as passes:
            logits_and_grads(net, *batch)
        assert (passes.forward, passes.backward) == (2, 2)
        raise RuntimeError("stop")
    assert not any("forward" in m.__dict__ for m in model.modules())


def test_a_compiled_model_is_left_alone():
    model = model_of(*NETS[0][:3]).eval()
    with folded(torch.compile(model)):
        assert not any("forward" in m.__dict__ for m in model.modules())
