"""AMR against its equations, and what an attacker of it must be able to see."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from components.batch import ModelOutput
from components.models import two_stream
from components.models.fusions.amr import (
    LEAST,
    ModalityAttention,
    Reweighter,
    mutual,
    statistics,
)


def _reweighter(std: float = 0.0) -> Reweighter:
    """With attention that has learned something, unless std is 0."""
    torch.manual_seed(0)
    merge = Reweighter()
    torch.nn.init.normal_(merge.attention.query, std=std)
    return merge


def _merge(merge: Reweighter, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [2, B, K] -> what the merge makes of them; it does not read features."""
    nothing = torch.zeros(logits.shape[1], 1)
    return merge(nothing, nothing, *logits)


def test_starts_as_the_mean_and_never_drops_a_modality() -> None:
    merge, logits = _reweighter(), torch.randn(2, 40, 5) * 4
    out, weights = _merge(merge, logits)
    assert torch.allclose(out, logits.log_softmax(-1).mean(0), atol=1e-6)
    assert torch.equal(weights, torch.full((40, 2), 0.5))
    merge.attention.bias.data.copy_(torch.tensor([500.0, -500.0]))
    out, weights = _merge(merge, logits * 1000)
    assert torch.isfinite(out).all()
    assert torch.allclose(weights, torch.tensor([1 - LEAST, LEAST]).expand(40, 2))
    assert torch.allclose(weights.sum(-1), torch.ones(40))


def test_each_modality_scores_its_own_evidence() -> None:
    torch.manual_seed(0)
    attention = ModalityAttention(4)
    evidence = torch.randn(3, 2, 4)
    assert torch.equal(attention(evidence), torch.full((3, 2), 0.5))
    torch.nn.init.normal_(attention.query)
    torch.nn.init.normal_(attention.bias)
    a, b = (evidence[:, m] @ attention.query[m] + attention.bias[m] for m in range(2))
    weights = attention(evidence)
    expected = LEAST + (1 - 2 * LEAST) * torch.sigmoid(a - b)
    assert torch.allclose(weights[:, 0], expected, atol=1e-6)
    assert torch.allclose(weights.sum(1), torch.ones(3))


def test_the_prediction_is_the_weighted_sum_of_log_probabilities() -> None:
    merge, logits = _reweighter(3.0), torch.randn(2, 6, 5) * 3
    out, weights = _merge(merge, logits)
    assert (weights - 0.5).abs().max() > 0.05
    log_p = logits.log_softmax(-1)
    expected = weights[:, :1] * log_p[0] + weights[:, 1:] * log_p[1]
    assert torch.allclose(out, expected, atol=1e-5)
    evidence = 4 * (statistics(log_p.permute(1, 2, 0)) - 0.5)
    assert torch.allclose(weights, merge.attention(evidence), atol=1e-6)


def test_it_leaves_its_weights_to_the_held_out_clips() -> None:
    model = two_stream(num_classes=5, width=0.25, skeleton_frames=16)
    names = {id(p): name for name, p in model.named_parameters()}
    stacked = [names[id(p)] for p in model.stacked()]
    assert stacked == ["merge.attention.query", "merge.attention.bias"]
    mean = two_stream(
        num_classes=5, width=0.25, skeleton_frames=16, fusion_settings={"weights": "mean"}
    )
    assert mean.stacked() == []


def test_constant_weights_are_fitted_and_look_at_no_clip() -> None:
    model = two_stream(
        num_classes=5, width=0.25, skeleton_frames=16, fusion_settings={"weights": "constant"}
    )
    assert [p.numel() for p in model.stacked()] == [2]
    merge = model.merge
    with torch.no_grad():
        merge.attention.bias.copy_(torch.tensor([-1.0, 1.0]))
    logits = torch.randn(2, 6, 5) * 3
    out, weights = _merge(merge, logits)
    assert weights is None
    video = 0.02 + 0.96 * torch.softmax(torch.tensor([-1.0, 1.0]), 0)[0]
    log_p = logits.log_softmax(-1)
    assert torch.allclose(out, video * log_p[0] + (1 - video) * log_p[1], atol=1e-5)


def test_statistics_name_no_class() -> None:
    log_p = torch.randn(4, 6, 2, generator=torch.Generator().manual_seed(1)).log_softmax(1)
    shuffled = log_p[:, torch.tensor([3, 0, 5, 1, 4, 2])]
    assert torch.allclose(statistics(log_p), statistics(shuffled), atol=1e-6)
    p = log_p[0].exp()
    assert p[:, 0].argmax() != p[:, 1].argmax()  # else its own favourite would pass for the other's
    entropy, top, margin, agreement, overlap = statistics(log_p)[0, 0].tolist()
    ordered = p[:, 0].sort(descending=True).values
    assert entropy == pytest.approx(-(p[:, 0] * p[:, 0].log()).sum().item() / math.log(6), abs=1e-6)
    assert top == pytest.approx(ordered[0].item())
    assert margin == pytest.approx((ordered[0] - ordered[1]).item(), abs=1e-6)
    assert agreement == pytest.approx(p[p[:, 1].argmax(), 0].item())
    assert overlap == pytest.approx((p[:, 0] * p[:, 1]).sum().item(), abs=1e-6)


def test_the_joint_prediction_teaches_the_heads_and_learns_nothing_itself() -> None:
    torch.manual_seed(0)
    joint, rgb, skeleton = (torch.randn(5, 3, requires_grad=True) for _ in range(3))
    output = ModelOutput(joint, {"rgb": rgb, "skeleton": skeleton}, {}, {})
    p = joint.detach().softmax(1)
    expected = 0.0
    for head in (rgb, skeleton):
        expected += (p * (p / head.detach().softmax(1)).log()).sum(1).mean().item() / 2
    loss = mutual(output, 3.0)
    assert loss.item() == pytest.approx(3 * expected, rel=1e-5)
    loss.backward()
    assert joint.grad is None and rgb.grad.abs().sum() > 0 and skeleton.grad.abs().sum() > 0
    assert mutual(output._replace(aux={})).item() == 0.0


@pytest.mark.parametrize("training", [True, False])
def test_the_gradient_through_the_weights_is_whole(training: bool) -> None:
    """Autograd against finite differences in both modes: attacks run in eval mode."""
    merge = _reweighter(1.25).train(training)
    logits = torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(1))
    direction = torch.randn(8, 5, generator=torch.Generator().manual_seed(2))

    def loss(at: Tensor) -> Tensor:
        return (_merge(merge, at)[0] * direction).sum()

    point = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(point), point)
    step = 1e-2
    measured = torch.zeros_like(logits)
    with torch.no_grad():
        for index in range(logits.numel()):
            change = torch.zeros(logits.numel())
            change[index] = step
            change = change.view_as(logits)
            measured.view(-1)[index] = (loss(logits + change) - loss(logits - change)) / (2 * step)
    assert torch.allclose(gradient, measured, atol=1e-3)
    # With the weights taken for constants an attacker would see another gradient.
    weights = _merge(merge, logits)[1].detach()
    log_p = point.log_softmax(-1)
    constant = (weights[:, :1] * log_p[0] + weights[:, 1:] * log_p[1]) * direction
    (cut,) = torch.autograd.grad(constant.sum(), point)
    assert (cut - gradient).abs().max() > 0.02


def test_attacks_see_the_weights_through_both_inputs(inputs: Callable) -> None:
    torch.manual_seed(0)
    model = two_stream(num_classes=5, width=0.25, skeleton_frames=16)
    torch.nn.init.normal_(model.merge.attention.query)
    model.eval()
    rgb, skeleton, present = inputs()
    both = rgb.requires_grad_(), skeleton.requires_grad_()
    weight = model(*both, present).weights["logits"][:, 0]
    for gradient in torch.autograd.grad(weight.sum(), both):
        assert gradient.flatten(1).abs().sum(1).min() > 0
