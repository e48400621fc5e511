"""Every model on the same inputs, in figures: whatever changes them changes every checkpoint."""

import pytest
import torch

from components.models import build_model

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
