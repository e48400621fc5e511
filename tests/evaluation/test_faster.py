"""Attacks go through the folded form of a model that has one; verdicts never do."""

import pytest
import torch
from torch import nn

from components.attacks import frozen
from components.batch import ModelOutput
from components.evaluation.cascade import run_cascade
from components.evaluation.faster import foldable
from components.evaluation.suite import Entry

PGD = (Entry("pgd5", "pgd", {"steps": 5}),)


class Normed(nn.Module):
    """The honest net behind a convolution and a norm; `swapped` runs them the other way round."""

    def __init__(self, honest: nn.Module, swapped: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv3d(3, 3, 1), nn.BatchNorm3d(3))
        with torch.no_grad():
            self.first[0].weight.copy_(0.9 * torch.eye(3).reshape(3, 3, 1, 1, 1))
            self.first[1].running_mean.fill_(0.02)
            self.first[1].running_var.fill_(0.8)
        self.honest, self.swapped = honest, swapped
        self.norms = 0

    def forward(self, rgb: torch.Tensor, skeleton: torch.Tensor, present: torch.Tensor):
        conv, norm = self.first
        moved = conv(norm(rgb)) if self.swapped else norm(conv(rgb))
        self.norms += "forward" not in norm.__dict__
        return self.honest(moved, skeleton, present)


@pytest.fixture
def normed(honest: nn.Module) -> Normed:
    model = Normed(honest).eval()
    return model


def test_attacks_pass_the_folded_form_and_verdicts_the_model_itself(normed, clips, threat):
    result = run_cascade(normed, clips, PGD, threat, seed=0, cells=("rgb",), clips_per_pass=0)
    # Clean clips, one look at whether folding changes anything, and the look at what was found.
    assert normed.norms == 3
    (outcome,) = result.outcomes
    assert bool(outcome.broke.any()) and not bool(outcome.broke.all())
    with torch.no_grad():
        found = run_cascade(normed, clips, (), threat, seed=0).clean.scores
    assert torch.equal(found.margin, result.clean.scores.margin)


def test_a_model_that_folding_would_change_is_attacked_as_it_is(honest, normed, clips, threat):
    swapped = Normed(honest, swapped=True).eval()
    with frozen(normed), frozen(swapped):
        assert foldable(normed, clips) and not foldable(swapped, clips)
        assert not foldable(honest, clips)  # nothing to fold
    before = swapped.norms
    run_cascade(swapped, clips, PGD, threat, seed=0, cells=("rgb",), clips_per_pass=0)
    assert swapped.norms == before + 1 + 1 + 5 + 1  # clean, the comparison, five steps, verdict


def test_an_output_that_is_no_number_is_not_folded(normed, clips):
    class Broken(Normed):
        def forward(self, *inputs: torch.Tensor) -> ModelOutput:
            output = super().forward(*inputs)
            return output._replace(logits=output.logits * torch.nan)

    broken = Broken(normed.honest).eval()
    with frozen(broken):
        assert not foldable(broken, clips)
