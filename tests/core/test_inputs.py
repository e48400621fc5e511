"""Clips from outside are looked at once: every fault names what was found and the fix."""

import pytest
import torch
from torch import nn

from components.attacks import Budget, ThreatModel
from components.batch import Batch, ModelOutput
from components.config import load_config
from components.errors import UserError
from components.evaluation import evaluate_model, robust_accuracy
from components.inputs import check_clips

THREAT = ThreatModel(rgb=Budget("Linf", 8 / 255), skeleton=Budget("Linf", 0.05))


@pytest.fixture
def clips():
    draw = torch.Generator().manual_seed(0)
    return Batch(
        torch.rand(4, 3, 2, 8, 8, generator=draw),
        torch.randn(4, 3, 5, 25, 2, generator=draw),
        torch.ones(4, 5, 2, dtype=torch.bool),
        torch.tensor([0, 1, 2, 0]),
        ("a", "b", "c", "d"),
    )


class Net(nn.Module):
    """Linear in both inputs."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 * 2 * 64 + 3 * 5 * 50, 3)

    def forward(self, rgb, skeleton, present):
        return self.layer(torch.cat([rgb.flatten(1), skeleton.flatten(1)], 1))


FAULTS = [
    ("rgb", lambda x: x * 2 - 1, r"\[-1, 1\], expected \[0, 1\].*normalise inside the model"),
    ("rgb", lambda x: x * 255, "divide by 255"),
    ("rgb", lambda x: (x * 255).to(torch.uint8), "float32.*255"),
    ("rgb", lambda x: x.half(), "float16, expected torch.float32"),
    ("rgb", lambda x: x.double(), "float64, expected torch.float32"),
    ("rgb", lambda x: x * float("nan"), "nan"),
    ("rgb", lambda x: x[0], r"expected \[B, 3, T, H, W\]"),
    ("rgb", lambda x: x.transpose(1, 2), "colour comes second"),
    ("rgb", lambda x: x[:0], "no clip"),
    ("rgb", lambda x: x.numpy(), "ndarray, expected a torch.Tensor"),
    ("skeleton", lambda x: x * 1000, "metres.*divide by 1000"),
    ("skeleton", lambda x: x.transpose(3, 4), "joints fourth"),
    ("skeleton", lambda x: x * float("inf"), "NaN or infinity"),
    ("skeleton", lambda x: x[:2], "2 clips"),
    ("present", lambda x: x.float(), "expected torch.bool"),
    ("present", lambda x: x[:, :3], "5 frames"),
    ("label", lambda x: nn.functional.one_hot(x), "one-hot"),
    ("label", lambda x: x.float(), "torch.int64"),
    ("label", lambda x: x[:2], r"expected \[4\]"),
    ("label", lambda x: x + 9, "label 11 but the model has 3 logits"),
    ("label", lambda x: x - 1, "label -1 but the model has 3 logits"),
    ("clip_id", lambda x: x[:2], "2 names for 4 clips"),
    ("clip_id", lambda x: ("a", "a", "b", "c"), "'a' twice"),
]


@pytest.mark.parametrize(("name", "fault", "message"), FAULTS, ids=range(len(FAULTS)))
def test_wrong_clips_are_refused_with_the_fix(clips, name, fault, message):
    batch = clips._replace(**{name: fault(getattr(clips, name))})
    with pytest.raises(UserError, match=message):
        evaluate_model(Net(), [batch], THREAT, "thin", checks=False)
    with pytest.raises(UserError, match=message):
        robust_accuracy(Net(), [batch], THREAT, steps=1)


def test_right_clips_pass_and_int32_labels_become_indices(clips):
    checked = check_clips(clips._replace(label=clips.label.int()))
    assert checked.label.dtype == torch.int64 and checked.label.tolist() == [0, 1, 2, 0]
    assert evaluate_model(Net(), [clips], THREAT, "thin", checks=False).summary["clips"] == 4


def test_joints_in_pixels_are_checked_only_as_metres(clips):
    far = clips._replace(skeleton=clips.skeleton * 500)
    threat = ThreatModel(skeleton=Budget("Linf", 2.0))
    summary = evaluate_model(Net(), [far], threat, "thin", checks=False, unit="pixels").summary
    assert summary["clips"] == 4


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: (x, x), "tuple"),
        (lambda x: {"logits": x}, "dict"),
        (lambda x: x[:, :1], "at least 2"),
        (lambda x: x.sum(), r"expected logits \[B, K\]"),
        (lambda x: None, "NoneType"),
        (lambda x: x.detach().numpy(), "ndarray"),
        (lambda x: (9 * x).int(), "torch.int32"),
    ],
)
def test_models_that_return_no_logits_are_refused(clips, answer, message):
    class Odd(Net):
        def forward(self, *inputs):
            return answer(super().forward(*inputs))

    with pytest.raises(UserError, match=message):
        evaluate_model(Odd(), [clips], THREAT, "thin", checks=False)
    with pytest.raises(UserError, match=message):
        robust_accuracy(Odd(), [clips], THREAT, steps=1)


def test_budgets_on_joints_in_millimetres_are_refused_unless_the_unit_is_another(clips):
    wide = ThreatModel(skeleton=Budget("Linf", 50.0))
    for call in (
        lambda **k: evaluate_model(Net(), [clips], wide, "thin", checks=False, **k),
        lambda **k: robust_accuracy(Net(), [clips], wide, steps=1, **k),
    ):
        with pytest.raises(UserError, match="0.05 was meant"):
            call()
        call(unit="pixels")


@pytest.mark.parametrize(
    "threat",
    [ThreatModel(rgb=Budget("L2", 300.0)), ThreatModel(skeleton=Budget("L2", 500.0))],
)
def test_budgets_in_l2_that_allow_anything_are_refused(clips, threat):
    for call in (
        lambda **k: evaluate_model(Net(), [clips], threat, "thin", checks=False, **k),
        lambda **k: robust_accuracy(Net(), [clips], threat, steps=1, **k),
    ):
        with pytest.raises(UserError, match="in L2 changes each of"):
            call()
    if threat.rgb is None:
        call(unit="pixels")


def test_one_batch_is_enough_and_none_is_an_error(clips):
    assert robust_accuracy(Net(), clips, THREAT, steps=1)["clips"] == 4
    with pytest.raises(UserError, match="no clips"):
        robust_accuracy(Net(), [], THREAT, steps=1)


def test_a_model_output_is_taken(clips):
    class Rich(Net):
        def forward(self, *inputs):
            return ModelOutput(super().forward(*inputs), {}, {}, {})

    evaluate_model(Rich(), [clips], THREAT, "thin", checks=False)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("threat.rgb.eps=8", "8/255 was meant"),
        ("train.attack.rgb_eps=8", "8/255 was meant"),
        ("threat.skeleton.eps=50", "0.05 was meant"),
        ("train.attack.skeleton_eps=50", "0.05 was meant"),
        ("threat.rgb={norm: L2, eps: 128}", "each of 55296 values by 0.54"),
        ("threat.skeleton={norm: L2, eps: 50}", "joints in metres"),
        ("threat.acceleration=30", "at most 2"),
        ("threat.bone_length=10", "at most 1"),
    ],
)
def test_budgets_in_another_unit_are_refused_when_settings_load(word, message):
    with pytest.raises(UserError, match=message):
        load_config("params.yaml", [word])


def test_a_budget_wider_than_the_pixels_is_refused():
    with pytest.raises(UserError, match="255 was meant"):
        ThreatModel(rgb=Budget("Linf", 8.0))
    assert ThreatModel(rgb=Budget("Linf", 8.0, low=0.0, high=255.0)).rgb.eps == 8.0
