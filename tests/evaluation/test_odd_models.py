"""Odd models, clips and budgets through a whole evaluation: a right answer or a clear error."""

import json

import pytest
import torch
from torch import nn

from components.attacks import Budget, ThreatModel
from components.errors import UserError
from components.evaluation import evaluate_model, robust_accuracy
from components.evaluation.suite import Entry

CELLS = ("rgb", "skeleton", "both")
SUITE = (
    Entry("fgsm", "fgsm", individual=True),
    Entry("pgd20", "pgd", {"steps": 4, "early_stop": True}, individual=True),
    Entry("apgd_t", "apgd_t", {"steps": 4, "n_targets": 1}),
    Entry("weakest_head", "weakest_head", {"steps": 3}, needs="aux"),
    Entry("square", "square", {"queries": 5}),
)


class Answer(nn.Module):
    """A net whose logits go through `change`."""

    def __init__(self, net, change):
        super().__init__()
        self.net, self.change = net, change

    def forward(self, *inputs):
        return self.change(self.net(*inputs).logits)


@pytest.fixture
def few(clips):
    return clips.select(torch.arange(8))


def evaluate(model, clips, threat, checks=False):
    summary = evaluate_model(model, clips, threat, SUITE, checks=checks).summary
    json.dumps(summary, allow_nan=False)
    return summary


def test_a_model_that_returns_nan_is_right_on_nothing(honest, few, threat):
    summary = evaluate(Answer(honest, lambda x: x * torch.nan), few, threat, checks=True)
    assert summary["clean_acc"]["value"] == 0
    assert {summary["worst"][cell]["value"] for cell in CELLS} == {0}
    assert summary["flagged"] == "fail"
    robust = robust_accuracy(Answer(honest, lambda x: x * torch.nan), few, threat, steps=1)
    assert robust["robust_acc"]["both"]["value"] == 0


def test_probabilities_are_flagged(honest, few, threat):
    flags = evaluate(Answer(honest, lambda x: x.softmax(1)), few, threat, checks=True)["flags"]
    (found,) = [flag for flag in flags if flag["check"] == "softmax_output"]
    assert found["status"] == "fail"


def test_half_precision_logits_are_judged_as_they_are(honest, few, threat):
    whole = evaluate(Answer(honest, lambda x: x), few, threat)
    half = evaluate(Answer(honest, lambda x: x.half()), few, threat)
    assert half["clean_acc"] == whole["clean_acc"]


@pytest.mark.parametrize("classes", [2, 3])
def test_two_and_three_classes_are_enough(classes, honest, clips_maker, threat):
    clips = clips_maker(8, seed=2, classes=classes)
    summary = evaluate(Answer(honest, lambda x: x[:, :classes]), clips, threat)
    assert summary["clean_acc"]["value"] > 0.5 and len(summary["confusion"]) == classes


def test_one_class_is_refused(honest, few, threat):
    with pytest.raises(UserError, match="at least 2"):
        evaluate(Answer(honest, lambda x: x[:, :1]), few, threat)


def test_clips_one_by_one_fall_as_they_do_together(honest, few, threat):
    together = evaluate(honest, few, threat)
    alone = evaluate(honest, [few.select(torch.tensor([i])) for i in range(8)], threat)
    for key in ("clean_acc", "worst", "robust_acc", "clips_fingerprint"):
        assert alone[key] == together[key]


def test_the_layout_of_clips_in_memory_changes_nothing(honest, few, threat):
    odd = few._replace(
        rgb=few.rgb.transpose(-1, -2).contiguous().transpose(-1, -2),
        skeleton=few.skeleton.transpose(1, 2).contiguous().transpose(1, 2),
    )
    assert not odd.rgb.is_contiguous() and not odd.skeleton.is_contiguous()
    found, expected = (evaluate(honest, x, threat) for x in (odd, few))
    assert (found["clean_acc"], found["worst"]) == (expected["clean_acc"], expected["worst"])


def test_a_plain_sum_is_evaluated(few, threat):
    """The gradient of a sum is one number expanded over all places."""

    class Sums(nn.Module):
        def forward(self, rgb, skeleton, present):
            total = rgb.flatten(1).sum(1) + skeleton.flatten(1).sum(1)
            return torch.stack([total, 100 - total, 0 * total, 0 * total], 1) / 100

    summary = evaluate(Sums(), few._replace(label=few.label * 0), threat)
    assert summary["clips"] == 8


def test_a_model_left_in_training_mode_is_evaluated_in_the_other_and_left_as_it_was(
    honest, few, threat
):
    class Dropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.drop = honest, nn.Dropout(0.5)
            self.norm = nn.BatchNorm1d(4)

        def forward(self, *inputs):
            return self.norm(self.drop(self.net(*inputs).logits))

    model = Dropping()
    expected = evaluate(model.eval(), few, threat, checks=True)
    model.train()
    found = evaluate(model, few, threat, checks=True)
    assert model.training and model.norm.num_batches_tracked == 0
    for key in ("clean_acc", "worst", "flags"):
        assert found[key] == expected[key]


def test_a_budget_of_nothing_breaks_nothing(honest, clips):
    for norm in ("Linf", "L2"):
        nothing = ThreatModel(Budget(norm, 0.0), Budget(norm, 0.0))
        summary = evaluate(honest, clips.select(torch.arange(20)), nothing, checks=True)
        assert all(summary["worst"][cell] == summary["clean_acc"] for cell in CELLS)
        assert summary["flagged"] == "pass", summary["flags"]
        assert set(summary["fooling_rate"]) == set(CELLS)
        assert all(summary["fooling_rate"][cell]["value"] == 0 for cell in CELLS)
