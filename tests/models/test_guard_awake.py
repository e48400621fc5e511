"""Models whose every weight and statistic counts, in figures: at the start many are 0, 1 or 1e-6.

What is pinned here is what a checkpoint computes; a fresh model hides a good part of it.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.batch import ModelOutput
from components.models import build_model, two_stream
from components.models.backbones import SKELETON_BACKBONES, VIDEO_BACKBONES, load_backbone
from components.models.backbones.stgcn import STGCN
from components.models.fusions.exfmem import FeatureMemory
from components.models.fusions.fusion import resolve_joins
from components.models.heads import PrototypeHeads
from components.models.normalize import SkeletonNormalize
from components.models.pooling import person_parts, video_parts
from tests.models.test_guard_pinned_models import BASE, MODELS


def wake(net: nn.Module) -> nn.Module:
    """Every parameter and statistic drawn anew: scales and variances above 0, the rest about 0."""
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in [*net.named_parameters(), *net.named_buffers()]:
            if not value.is_floating_point() or name.split(".")[-1] in ("mean", "std"):
                continue
            if name.endswith(("adjacency", "importance")) or "var" in name:
                value.mul_(0.7 + 0.6 * torch.rand(value.shape, generator=draw))
            elif value.dim() == 1 and name.endswith("weight"):
                value.copy_(0.7 + 0.6 * torch.rand(value.shape, generator=draw))
            else:
                fan = max(1, value[0].numel()) if value.dim() > 1 else 4
                value.copy_(torch.randn(value.shape, generator=draw) / fan**0.5)
    return net


def hold_each(pinned, name: str, told: dict[str, float]) -> None:
    """Each figure by its own size, so as a logarithm; whole numbers exactly."""
    whole, figures = {}, {}
    for key, value in told.items():
        if isinstance(value, int):
            whole |= {f"{key}, thousands": value // 1000, key: value % 1000}
        else:
            figures[f"{key} {'-' if value < 0 else '+'}"] = math.log10(abs(value) + 1e-9)
    pinned(name, figures, rel=1e-3)
    pinned(f"{name}, sizes", whole, rel=1e-6)


def clip(channels: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(2)
    return (
        torch.rand(2, 3, 5, 37, 33, generator=draw) * 2 - 1,
        torch.randn(2, channels, 2, 16, 25, generator=draw),
    )


@pytest.mark.parametrize("name", [*VIDEO_BACKBONES, *SKELETON_BACKBONES])
def test_figures_of_every_backbone(name, pinned) -> None:
    """Of a clip with odd sizes, after each stage, with the gradient that reaches the input."""
    if name in VIDEO_BACKBONES:
        net = VIDEO_BACKBONES[name](width=0.25)
        x, rest = clip(3)[0], ()
    else:
        net = SKELETON_BACKBONES[name](width=0.25, frames=16)
        x, rest = clip(6 if net.motion else 3)[1], (torch.tensor([[1.0, 1.0], [1.0, 0.0]]),)
    wake(net).eval()
    leaf = x.requires_grad_(True)
    told, y = {}, net.begin(leaf)
    for i, stage in enumerate(net.stages):
        y = stage(y, *rest)
        told |= {f"size {i} {axis}": n for axis, n in enumerate(y.shape[1:])}
        told[f"stage {i}"] = float(y.detach().square().mean().sqrt())
    features = net.pool(y, *rest, 2)
    pull = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    told["along"] = float((features.detach() * pull).sum() / pull.norm())
    (slope,) = torch.autograd.grad((features * pull).sum(), leaf)
    told["slope"] = float(slope.norm())
    told["parameters"] = sum(p.numel() for p in net.parameters())
    kept = {k for k, v in net.state_dict().items() if v.is_floating_point()}
    told["kept"] = len(kept)
    hold_each(pinned, f"awake {name}", told)


@pytest.mark.parametrize("name", MODELS)
def test_figures_of_every_model_that_has_learned_something(name, inputs, pinned) -> None:
    torch.manual_seed(0)
    model = wake(build_model({**BASE, **MODELS[name]})).eval()
    rgb, skeleton, present = inputs(clips=4)
    present[3, 5:9] = False
    skeleton = skeleton * present[:, None, :, None, :]
    leaves = rgb.requires_grad_(True), skeleton.requires_grad_(True)
    output = model(*leaves, present)
    pull = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    told = {"along": float((output.logits.detach() * pull).sum())}
    told["penalty"] = float(model.regulariser(output).detach())
    for part in ("aux", "weights", "features"):
        for key, value in getattr(output, part).items():
            told[f"{part} {key}"] = float(value.detach().square().mean().sqrt())
    grads = torch.autograd.grad((output.logits * pull).sum(), leaves)
    told |= {f"slope {k}": float(g.norm()) for k, g in zip("rs", grads, strict=True)}
    for part, module in model.named_children():
        told[f"size {part}"] = sum(p.numel() for p in module.parameters())
    hold_each(pinned, f"awake {name} model", told)


def test_rotation_takes_shoulders_of_any_size_but_none() -> None:
    """A child far off is turned; where both shoulders stand in one place nothing is."""
    normalize = SkeletonNormalize(rotate=True, motion=False)
    skeleton = 0.1 * torch.randn(3, 3, 4, 25, 1, generator=torch.Generator().manual_seed(0))
    for clip_, width in enumerate((0.3, 0.004, 1e-4)):
        skeleton[clip_, :, :, 8] = skeleton[clip_, :, :, 4]
        skeleton[clip_, 2, :, 8] += width
    present = torch.ones(3, 4, 1, dtype=torch.bool)
    straight = normalize(skeleton, present)[0]
    plain = SkeletonNormalize(motion=False)(skeleton, present)[0]
    across = (straight[:, :, 0, 0, 8] - straight[:, :, 0, 0, 4]).tolist()
    for found, width in zip(across[:2], (0.3, 0.004), strict=True):
        assert found == pytest.approx([width, 0.0, 0.0], abs=1e-6)
    assert torch.equal(straight[2], plain[2])


@pytest.mark.parametrize("frames", [1, 2, 5, 7])
@pytest.mark.parametrize("parts", [1, 2, 3, 4])
def test_parts_of_time_are_those_of_adaptive_pooling(frames, parts) -> None:
    draw = torch.Generator().manual_seed(0)
    video = torch.randn(2, 3, frames, 4, 5, generator=draw)
    bodies = torch.randn(2, 3, 2, frames, 6, generator=draw)
    real = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    mean = torch.stack([bodies[0].mean(1), bodies[1, :, 1]]).mean(3)
    for found, series in (
        (video_parts(video, parts), video.mean((3, 4))),
        (person_parts(bodies, real, parts), mean),
    ):
        pooled = F.adaptive_avg_pool1d(series, parts)  # [B, C, parts]
        torch.testing.assert_close(found, pooled.transpose(1, 2).flatten(1))
    nobody = person_parts(bodies, torch.zeros(2, 2), parts)
    assert nobody.shape == (2, 3 * parts) and not nobody.any()


def test_a_memory_makes_twenty_steps_of_ista() -> None:
    """Over 64 atoms, at a sparsity of 0.1, half of it mixed in, unless set otherwise."""
    torch.manual_seed(0)
    memory, feature = FeatureMemory(12), torch.randn(3, 12)
    atoms = memory.dictionary.detach() / memory.dictionary.detach().norm(dim=0)
    assert atoms.shape == (12, 64)
    size = 1 / (atoms.T @ atoms).abs().sum(1).max()
    code = torch.zeros(3, 64)
    for _ in range(20):
        x = code - size * (code @ atoms.T - feature) @ atoms
        code = x.sign() * (x.abs() - 0.1 * size).clamp(min=0)
    rebuilt = code @ atoms.T
    torch.testing.assert_close(memory(feature), (rebuilt + feature) / 2)
    torch.testing.assert_close(memory.loss(feature), ((feature - rebuilt) ** 2).mean())


def test_the_slope_of_a_prototype_head_is_bounded_where_nothing_is_left() -> None:
    for size in (0.0, 1e-9):
        nothing = torch.full((2, 6), size, requires_grad=True)
        PrototypeHeads(6, 6, 5, scale=12.0)({"rgb": nothing})["rgb"].sum().backward()
        assert nothing.grad.abs().max() <= 12 * 5 / 1e-4


def test_stages_of_a_fusion_must_grow_in_both_nets() -> None:
    assert resolve_joins(([3, 2], [1, 0], [2, 1]), 4, 3) == [(1, 0), (2, 1), (3, 2)]
    assert resolve_joins(([-4, -3],), 4, 3) == [(0, 0)]
    for wrong in (([1, 1], [1, 2]), ([0, 1], [1, 1]), ([0, 2], [1, 1]), ([0, 1], [0, 1])):
        with pytest.raises(ValueError, match="both must grow from join to join"):
            resolve_joins(wrong, 4, 3)
    for outside in ([4, 0], [-5, 0], [0, 3], [0, -4]):
        with pytest.raises(ValueError, match="is outside the"):
            resolve_joins((outside,), 4, 3)


def test_two_classes_are_enough_and_a_plain_head_has_no_penalty(inputs) -> None:
    model = two_stream(num_classes=2, width=0.25, skeleton_frames=16, fusion="late").eval()
    output = model(*inputs())
    assert output.logits.shape == (3, 2)
    assert float(model.regulariser(output)) == 0.0
    assert model.regulariser(ModelOutput(output.logits, {}, {}, {})).dtype == torch.float32


def test_the_body_s_graph_is_no_weight_of_a_checkpoint() -> None:
    assert not any(name.endswith("adjacency") for name in STGCN(width=0.125).state_dict())


def test_published_weights_that_do_not_fit_are_named_three_of_a_kind() -> None:
    net = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(5)))
    state = {name: value.clone() + 1 for name, value in net.state_dict().items()}
    for missing, told in ((3, r"missing: \S+, \S+, 2\.weight\)"), (5, r"2\.weight and 2 more\)")):
        rest = dict(list(state.items())[missing:])
        with pytest.raises(ValueError, match=told):
            load_backbone(net, rest)
    with pytest.raises(ValueError, match=r"unexpected: a, b; wrong shape: 0\.weight \(3, 2\)"):
        load_backbone(net, {**state, "a": state["0.weight"], "b": state["0.weight"],
                            "0.weight": torch.ones(3, 2)})  # fmt: skip
    load_backbone(net, {**state, "fc.weight": torch.ones(9)})
    assert torch.equal(net[0].weight, state["0.weight"])
    norm = nn.Sequential(nn.BatchNorm1d(2))
    old = {k: v + 1 for k, v in norm.state_dict().items() if v.is_floating_point()}
    load_backbone(norm, old)  # from before BatchNorm counted its batches
    assert norm[0].running_mean.tolist() == [1.0, 1.0]
