"""Every model on the same inputs, in figures: whatever changes them changes every checkpoint."""

import pytest
import torch

from components.models import build_model
from components.models.backbones import SKELETON_BACKBONES, VIDEO_BACKBONES, SmallSkeleton

BASE = {"num_classes": 5, "width": 0.25, "skeleton_frames": 16}
MODELS = {
    **{
        f"{rgb} late": {"rgb": rgb, "fusion": "late"}
        for rgb in ("small_video", "r3d_18", "mc3_18", "r2plus1d_18", "inflated_resnet50")
    },
    **{
        f"{net} concat": {"skeleton": net, "fusion": "concat"}
        for net in ("small_skeleton", "hcn", "stgcn", "ctrgcn")
    },
    **{
        fusion: {"fusion": fusion}
        for fusion in ("mmtm", "minsim", "exfmem", "minsim_exfmem", "fim", "amr")
    },
    "turned": {"fusion": "late", "view_rotation": True, "centre": "spine", "time_parts": 3},
    "whole width": {"fusion": "amr", "width": 1.0},
}

# Channels after each stage, and parameters without the classifier, at width 1.
WIDTHS = {
    "small_video": ((16, 32, 64, 128), 163_408),
    "r3d_18": ((64, 128, 256, 512), 33_166_272),  # torchvision's, less 205,200 of its classifier
    "mc3_18": ((64, 128, 256, 512), 11_490_240),
    "r2plus1d_18": ((64, 128, 256, 512), 31_300_125),
    "inflated_resnet50": ((256, 512, 1024, 2048), 46_142_528),
    "small_skeleton": ((64, 64, 128), 66_176),
    "hcn": ((128, 128, 256, 512), 1_031_872),
    "stgcn": ((64, 128, 256), 3_083_412),
    "ctrgcn": ((64, 128, 256), 1_431_102),
}


@pytest.mark.parametrize("name", MODELS)
def test_figures_of_every_model(name, inputs, pinned) -> None:
    torch.manual_seed(0)
    model = build_model({**BASE, **MODELS[name]})
    rgb, skeleton, present = inputs(clips=4)
    present[3, 5:9] = False
    skeleton = skeleton * present[:, None, :, None, :]
    leaves = rgb.requires_grad_(True), skeleton.requires_grad_(True)
    told = {"parameters": sum(p.numel() for p in model.parameters()) / 1e4}
    pull = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    for mode in ("train", "eval"):
        torch.manual_seed(2)
        getattr(model, mode)()
        output = model(*leaves, present)
        told[f"{mode} logits"] = float(output.logits.detach().abs().mean())
        told[f"{mode} along"] = float((output.logits.detach() * pull).sum())
        told[f"{mode} penalty"] = float(model.regulariser(output).detach())
        for head, logits in output.aux.items():
            told[f"{mode} {head}"] = float((logits.detach() * pull).sum())
        grads = torch.autograd.grad((output.logits * pull).sum(), leaves)
        for leaf, grad in zip(("rgb", "skeleton"), grads, strict=True):
            told[f"{mode} slope of {leaf}"] = float(grad.norm())
    pinned(name, told, rel=0.01)


@pytest.mark.parametrize("name", WIDTHS)
def test_whole_backbones_have_the_width_they_are_known_for(name) -> None:
    kinds = {"rgb": VIDEO_BACKBONES, "skeleton": SKELETON_BACKBONES}
    frames = {"rgb": {}, "skeleton": {"frames": 32}}
    kind = next(kind for kind, table in kinds.items() if name in table)
    net = kinds[kind][name](width=1.0, **frames[kind])
    parameters = sum(p.numel() for k, p in net.named_parameters() if not k.startswith("fc."))
    assert (tuple(net.channels), parameters) == WIDTHS[name]


def test_small_skeletons_without_motion_take_three_values_a_joint() -> None:
    net = SmallSkeleton(motion=False)
    begun = net.begin(torch.zeros(2, 3, 1, 8, 25))
    assert net.stages[0](begun, torch.ones(2, 1)).shape[1] == net.channels[0]
