"""A frozen model in a form that gradient attacks pass faster; the function it computes is the same.

In eval mode BatchNorm is a fixed scale and shift, so it goes into the convolution before it; and
the gradient of a first convolution for the video takes a cheaper way on CPU. Both are exact, up to
float rounding. Modules keep their parameters, buffers and state dict: for the time being their
`forward` is another, and nothing else. `benchmarks/attack_step.py` measures what it saves.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.fusion import fuse_conv_bn_weights

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
FEW = 4  # input channels up to which a strided convolution's own input gradient is slow
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

Pair = tuple[Any, Any]


@contextmanager
def folded(model: Any) -> Iterator[None]:
    """Inside, the frozen `model` is folded; to be used within `gradient.frozen`.

    A convolution and a norm are a pair when they follow each other in a plain `nn.Sequential`,
    nested ones included, or when their parent says so: `normalised = (("conv", "norm"), ...)`
    names attributes that its forward runs one right after the other. What is shared, hooked,
    compiled, still in training mode or of any other kind stays as it is.
    """
    changed: list[nn.Module] = []
    try:
        # A compiled model holds on to the code it was traced from.
        if isinstance(model, nn.Module) and not hasattr(model, "_orig_mod"):
            _fold(model, changed)
        yield
    finally:
        for module in changed:
            del module.__dict__["forward"]


def conv_norm_pairs(model: nn.Module) -> list[Pair]:
    """(convolution, norm) of all pairs that `folded` folds, in order."""
    used = Counter(id(child) for m in model.modules() for child in m._modules.values() if child)
    found: list[Pair] = []
    for module in model.modules():
        if type(module) is nn.Sequential:
            leaves = list(_leaves(module))
            found += zip(leaves, leaves[1:], strict=False)
        for first, second in getattr(module, "normalised", ()):
            found.append((getattr(module, first), getattr(module, second)))
    # A nested Sequential shows its pairs twice.
    unique = {(id(conv), id(norm)): (conv, norm) for conv, norm in found}
    return [
        (conv, norm)
        for conv, norm in unique.values()
        if type(conv) in CONVS
        and type(norm) in NORMS
        and not norm.training
        and norm.running_mean is not None
        and all(used[id(m)] == 1 and _plain(m) for m in (conv, norm))
    ]


def _leaves(module: nn.Module) -> Iterator[nn.Module]:
    if type(module) is nn.Sequential:
        for child in module:
            yield from _leaves(child)
    else:
        yield module


def _plain(module: nn.Module) -> bool:
    return "forward" not in module.__dict__ and not any(getattr(module, h) for h in HOOKS)


@torch.no_grad()
def _fold(model: nn.Module, changed: list[nn.Module]) -> None:
    weights: dict[int, tuple[Tensor, Tensor | None]] = {}
    for conv, norm in conv_norm_pairs(model):
        weights[id(conv)] = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var,
            norm.eps, norm.weight, norm.bias,
        )  # fmt: skip
        norm.forward = _same
        changed.append(norm)
    for module in model.modules():
        few = type(module) is nn.Conv3d and _plain(module) and _is_slow(module)
        if id(module) not in weights and not few:
            continue
        layer: Any = module
        weight, bias = weights.get(id(layer), (layer.weight, layer.bias))
        weight, bias = _cast(weight.detach()), None if bias is None else _cast(bias.detach())
        forward = partial(layer._conv_forward, weight=weight, bias=bias)
        if few:
            forward = partial(_few_channels, forward, _to_blocks(weight))
        layer.forward = forward
        changed.append(layer)


def _same(x: Tensor) -> Tensor:
    return x


def _cast(weight: Tensor) -> Tensor:
    """Once, rather than in every pass: autocast keeps no copies of what needs no gradient."""
    kind = weight.device.type
    return weight.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else weight


def _is_slow(conv: nn.Conv3d) -> bool:
    """A video net's first convolution on CPU: few channels in, half the rows and columns out."""
    return (
        conv.in_channels <= FEW
        and conv.weight.device.type == "cpu"
        and conv.stride == (1, 2, 2)
        and conv.groups == 1
        and conv.dilation == (1, 1, 1)
        and conv.padding_mode == "zeros"
        and all(k % 2 and p == k // 2 for k, p in zip(conv.kernel_size, conv.padding, strict=True))
    )


def _few_channels(forward: Any, blocks: Tensor, x: Tensor) -> Tensor:
    if not x.requires_grad or x.ndim != 5 or x.shape[3] % 2 or x.shape[4] % 2:
        return forward(x)
    return _FewChannels.apply(x, forward, blocks)


class _FewChannels(torch.autograd.Function):
    """A convolution of stride 2 whose input gradient is one of stride 1 over 2 x 2 blocks.

    Pixel (2i + a, 2j + b) is channel (a, b) of block (i, j), so the gradient for the blocks is an
    ordinary convolution with four times the channels, on which CPU kernels are several times
    faster than on three channels of stride 2.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: Any, blocks: Tensor) -> Tensor:
        ctx.blocks, ctx.dtype = blocks, x.dtype
        return forward(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        kernel = ctx.blocks.shape[2:]
        z = F.conv3d(grad, ctx.blocks.to(grad.dtype), padding=tuple(k // 2 for k in kernel))
        b, _, t, h, w = z.shape
        z = z.permute(0, 2, 3, 4, 1).reshape(b, t, h, w, 2, 2, -1)  # channels (a, b, c)
        x = z.permute(0, 6, 1, 2, 4, 3, 5).reshape(b, -1, t, 2 * h, 2 * w)
        return x.to(ctx.dtype), None, None


def _to_blocks(weight: Tensor) -> Tensor:
    """Weight [O, C, kt, k, k] of the strided convolution -> [4 C, O, kt, d, d] of its gradient.

    Tap k of the kernel looks at offset k - k // 2 = 2 d + a: at row a of the d-th block from here.
    """
    o, c, kt, kh, kw = weight.shape
    rows, columns = ((k // 2 + 1) // 2 for k in (kh, kw))  # furthest block on either side
    before = (2 * columns - kw // 2, 2 * rows - kh // 2)
    after = (2 * (2 * columns + 1) - kw - before[0], 2 * (2 * rows + 1) - kh - before[1])
    padded = F.pad(weight, (before[0], after[0], before[1], after[1]))
    blocks = padded.view(o, c, kt, 2 * rows + 1, 2, 2 * columns + 1, 2)
    blocks = blocks.permute(4, 6, 1, 0, 2, 3, 5).reshape(4 * c, o, kt, 2 * rows + 1, -1)
    return blocks.flip(2, 3, 4).contiguous()
