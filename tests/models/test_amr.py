"""AMR against its equations, and what an attacker of it must be able to see."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from components.batch import ModelOutput
from components.errors import UserError
from components.models import two_stream
from components.models.fusions.amr import (
    ModalityAttention,
    Reweighter,
    floored_softmax,
    mutual,
    statistics,
)


def _reweighter(std: float = 0.0, classes: int = 5, **settings: float) -> Reweighter:
    """With attention that has learned something, unless std is 0."""
    torch.manual_seed(0)
    merge = Reweighter(classes, **settings)
    torch.nn.init.normal_(merge.attention.query.weight, std=std)
    return merge


def _merge(merge: Reweighter, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [2, B, K] -> what the merge makes of them; it does not read features."""
    nothing = torch.zeros(logits.shape[1], 1)
    return merge(nothing, nothing, *logits)


def test_starts_as_the_mean_and_keeps_its_floor() -> None:
    merge, logits = _reweighter(floor=0.2, temperature=0.1), torch.randn(2, 4, 5) * 4
    out, weights = _merge(merge, logits)
    assert torch.allclose(out, logits.log_softmax(-1).mean(0), atol=1e-6)
    assert torch.equal(weights, torch.full((4, 2), 0.5))
    out, weights = _merge(_reweighter(50.0, floor=0.2, temperature=0.1), logits * 1000)
    assert torch.isfinite(out).all()
    assert weights.min() >= 0.2 - 1e-6 and torch.allclose(weights.sum(-1), torch.ones(4))
    assert weights.max() > 0.7


def test_attends_by_scaled_dot_products() -> None:
    torch.manual_seed(0)
    attention = ModalityAttention(4, temperature=0.7, floor=0.1)
    context, tokens = torch.randn(3, 4), [torch.randn(3, 4), torch.randn(3, 4)]
    assert torch.equal(attention(context, tokens), torch.full((3, 2), 0.5))
    torch.nn.init.normal_(attention.query.weight)
    torch.nn.init.normal_(attention.query.bias)
    query = context @ attention.query.weight.T + attention.query.bias
    a, b = ((query * token).sum(1) / math.sqrt(4) / 0.7 for token in tokens)
    weights = attention(context, tokens)
    assert torch.allclose(weights[:, 0], 0.1 + 0.8 * torch.sigmoid(a - b), atol=1e-6)
    assert torch.allclose(weights.sum(1), torch.ones(3))


def test_the_prediction_is_the_weighted_sum_of_log_probabilities() -> None:
    merge, logits = _reweighter(3.0, floor=0.1), torch.randn(2, 6, 5) * 3
    out, weights = _merge(merge, logits)
    assert (weights - 0.5).abs().max() > 0.05
    log_p = logits.log_softmax(-1)
    expected = weights[:, :1] * log_p[0] + weights[:, 1:] * log_p[1]
    assert torch.allclose(out, expected, atol=1e-5)
    tokens = [
        layer(facts)
        for layer, facts in zip(
            merge.tokens, statistics(log_p.permute(1, 2, 0)).unbind(1), strict=True
        )
    ]
    context = merge.context(torch.cat(tokens, 1)).relu()
    assert torch.allclose(weights, merge.attention(context, tokens), atol=1e-6)


def test_doubt_bounds_how_far_one_modality_can_veto_a_class() -> None:
    sure = torch.tensor([[1000.0, 0.0, 0.0, 0.0]])
    out, weights = _merge(_reweighter(classes=4, doubt=0.1), torch.stack([sure, sure.flip(1)]))
    assert torch.allclose(weights, torch.full((1, 2), 0.5))
    # Half the log of 0.9 + 0.1 / 4 and half the log of 0.1 / 4 for either favourite.
    expected = (math.log(0.925) + math.log(0.025)) / 2
    assert out[0, 0].item() == pytest.approx(expected, abs=1e-5)
    assert out[0, 1].item() == pytest.approx(math.log(0.025), abs=1e-5)


def test_video_bias_moves_the_weight_of_the_video_outside_training_only() -> None:
    logits = torch.randn(2, 60, 3, generator=torch.Generator().manual_seed(0)) * 5
    merge = _reweighter(100.0, classes=3, floor=0.4, video_bias=0.1)
    trained = _merge(merge.train(), logits)[1]
    used = _merge(merge.eval(), logits)[1]
    assert torch.allclose(trained + torch.tensor([0.1, -0.1]), used)
    assert torch.allclose(used.sum(1), torch.ones(60))
    assert 0.5 - 1e-6 <= used[:, 0].min() < used[:, 0].max() <= 0.7 + 1e-6
    with pytest.raises(UserError, match="video_bias"):
        Reweighter(3, floor=0.1, video_bias=0.2)
    with pytest.raises(UserError, match="video_bias"):
        Reweighter(3, floor=0.1, video_bias=-0.2)


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


def test_floored_softmax() -> None:
    weights = floored_softmax(torch.tensor([[100.0, -100.0], [0.0, 0.0]]), 1.0, 0.05)
    assert torch.allclose(weights, torch.tensor([[0.95, 0.05], [0.5, 0.5]]))
    warm = floored_softmax(torch.tensor([[2.0, 0.0]]), 4.0, 0.0)
    assert warm[0, 0].item() == pytest.approx(1 / (1 + math.exp(-0.5)))


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
    merge = _reweighter(5.0, floor=0.1, video_bias=0.1, doubt=0.1).train(training)
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
    p = point.softmax(-1)
    log_p = (0.9 * p + 0.1 / 5).log()
    constant = (weights[:, :1] * log_p[0] + weights[:, 1:] * log_p[1]) * direction
    (cut,) = torch.autograd.grad(constant.sum(), point)
    assert (cut - gradient).abs().max() > 0.02


@pytest.mark.parametrize("settings", [{}, {"video_bias": 0.1, "doubt": 0.2}])
def test_attacks_see_the_weights_through_both_inputs(settings: dict, inputs: Callable) -> None:
    torch.manual_seed(0)
    model = two_stream(num_classes=5, width=0.25, skeleton_frames=16, fusion_settings=settings)
    torch.nn.init.normal_(model.merge.attention.query.weight)
    model.eval()
    rgb, skeleton, present = inputs()
    both = rgb.requires_grad_(), skeleton.requires_grad_()
    weight = model(*both, present).weights["logits"][:, 0]
    for gradient in torch.autograd.grad(weight.sum(), both):
        assert gradient.flatten(1).abs().sum(1).min() > 0
