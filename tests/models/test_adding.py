"""The fusion and the backbone that CONTRIBUTING.md adds are models like the others."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from components.errors import UserError
from components.models import TwoStream, build_model
from components.models.backbones import VIDEO_BACKBONES
from components.models.fusions import FUSIONS
from tests._support.examples import examples

SECTION = {"num_classes": 4, "width": 0.25, "skeleton_frames": 16, "rgb_frames": 4}


def _loss(model: TwoStream, data: tuple, labels: torch.Tensor) -> torch.Tensor:
    output = model(*data)
    heads = sum(F.cross_entropy(logits, labels) for logits in output.aux.values())
    return F.cross_entropy(output.logits, labels) + heads + model.regulariser(output)


def _trains(model: TwoStream, data: tuple) -> None:
    """Adversarial steps as training takes them: attack in eval mode, then update."""
    labels = torch.arange(len(data[0])) % 4
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    before = _loss(model.train(), data, labels).item()
    for _ in range(8):
        rgb, skeleton = (x.clone().requires_grad_() for x in data[:2])
        loss = _loss(model.eval(), (rgb, skeleton, data[2]), labels)
        up = torch.autograd.grad(loss, (rgb, skeleton))
        assert all(gradient.abs().sum() > 0 for gradient in up)
        attacked = [
            (x + 0.01 * g.sign()).detach() for x, g in zip((rgb, skeleton), up, strict=True)
        ]
        optimizer.zero_grad()
        _loss(model.train(), (*attacked, data[2]), labels).backward()
        assert all(p.grad is not None for p in model.parameters())
        optimizer.step()
    assert _loss(model, data, labels).item() < before


def test_the_fusion_of_the_guide(monkeypatch, inputs: Callable) -> None:
    section = {**SECTION, "fusion": "gated", "amr": {"floor": 0.1}}
    with pytest.raises(UserError, match="model.fusion='gated' does not exist"):
        build_model(section)
    monkeypatch.setitem(FUSIONS, "gated", examples()["fusion"].module().gated)
    torch.manual_seed(0)
    model = build_model({**section, "gated": {"start": 1.0}})
    weights = model(*inputs(4)).weights["logits"]
    assert torch.allclose(weights[:, 0], torch.full((4,), 1.0).sigmoid())
    _trains(build_model(section), inputs(4))
    assert build_model({**section, "time_parts": 2}).time_parts == 2
    with pytest.raises(UserError, match=r"model\.gated\.begin is no setting"):
        build_model({**section, "gated": {"begin": 1.0}})


@pytest.mark.parametrize("fusion", ["amr", "mmtm"])
def test_the_backbone_of_the_guide(fusion: str, monkeypatch, inputs: Callable) -> None:
    two_convs = examples()["backbone"].module().TwoConvs
    monkeypatch.setitem(VIDEO_BACKBONES, "two_convs", two_convs)
    torch.manual_seed(0)
    model = build_model({**SECTION, "rgb": "two_convs", "fusion": fusion})
    assert model.rgb.channels == (8, 8)
    _trains(model, inputs(4))
