"""The same bits for a clip in whatever company it is evaluated."""

import pytest
import torch

from components.evaluation.fixed import FixedShape


def outputs(model, clips):
    """Logits and input gradients."""
    rgb, skeleton = clips.rgb.clone().requires_grad_(), clips.skeleton.clone().requires_grad_()
    logits = model(rgb, skeleton, clips.present).logits
    loss = torch.nn.functional.cross_entropy(logits, clips.label, reduction="sum")
    return logits.detach(), *torch.autograd.grad(loss, [rgb, skeleton])


@pytest.mark.parametrize("n", [1, 3, 8, 11, 39])
def test_company_changes_no_bit(honest, clips, n):
    fixed = FixedShape(honest, 8)
    index = torch.randperm(clips.size, generator=torch.Generator().manual_seed(n))[:n]
    whole, part = outputs(fixed, clips), outputs(fixed, clips.select(index))
    for all_of_them, some in zip(whole, part, strict=True):
        assert torch.equal(all_of_them[index], some)


def test_same_answer_as_the_model_itself(honest, clips):
    fixed = FixedShape(honest, 16)
    ours = fixed(clips.rgb, clips.skeleton, clips.present)
    theirs = honest(clips.rgb, clips.skeleton, clips.present)
    torch.testing.assert_close(ours.logits, theirs.logits)
    for name in ("aux", "weights", "features"):
        for key, value in getattr(theirs, name).items():
            torch.testing.assert_close(getattr(ours, name)[key], value)
    for mine, its in zip(outputs(fixed, clips), outputs(honest, clips), strict=True):
        torch.testing.assert_close(mine, its)


def test_every_pass_has_the_same_shape_and_one_kind_of_clip(honest, clips):
    seen = []
    handle = honest.register_forward_pre_hook(
        lambda _, inputs: seen.append((len(inputs[0]), inputs[2].any(1).sum(1).unique().tolist()))
    )
    FixedShape(honest, 16)(clips.rgb, clips.skeleton, clips.present)
    handle.remove()
    assert [n for n, _ in seen] == [16, 16, 16, 16]
    assert [kinds for _, kinds in seen] == [[1], [1], [2], [2]]
