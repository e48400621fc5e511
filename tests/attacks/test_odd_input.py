"""Every attack of the table alone: odd clips and models get a right answer or a clear error."""

from functools import partial

import pytest
import torch
from torch import nn

from components.attacks import (
    ATTACKS,
    Budget,
    Counter,
    ThreatModel,
    fgsm,
    fit_universal,
    pgd,
    transfer,
    universal,
)
from components.errors import UserError

FEW = {
    "pgd": {"steps": 2}, "mifgsm": {"steps": 2}, "cw": {"steps": 2}, "apgd_ce": {"steps": 2},
    "apgd_dlr": {"steps": 2}, "apgd_t": {"steps": 2, "n_targets": 1}, "square": {"queries": 3},
    "hard_label": {"queries": 5}, "smart": {"steps": 2}, "sparse_frames": {"steps": 2},
    "flicker": {"steps": 2}, "eot": {"samples": 1, "steps": 2}, "attention_touched": {"steps": 2},
    "attention_other": {"steps": 2}, "heads": {"steps": 2}, "weakest_head": {"steps": 2},
    "cross": {"steps": 2},
}  # fmt: skip
NAMES = [*ATTACKS, "transfer", "universal"]
# Their losses reach into parts of ModelOutput that a plain tensor does not have.
PLAIN = [name for name in ATTACKS if name not in ("attention_touched", "attention_other")]
PLAIN = [name for name in PLAIN if name not in ("heads", "weakest_head", "cross")]
BOTH = ThreatModel(Budget("Linf", 0.04), Budget("Linf", 0.05))
L2 = ThreatModel(Budget("L2", 0.4), Budget("L2", 0.5))


@pytest.fixture(scope="module")
def clips(model, make_batch):
    return make_batch(model)


@pytest.fixture
def attack_of(model, clips):
    def make(name):
        if name == "transfer":
            return lambda net, *a, **k: transfer(net, *a, source=net, steps=2, **k)
        if name == "universal":
            return partial(universal, delta=fit_universal(model, [clips], BOTH, epochs=1))
        return partial(ATTACKS[name], **FEW.get(name, {}))

    return make


FAULTS = {
    "pixels in [-1, 1]": ("rgb", lambda x: x * 2 - 1, "normalise inside the model"),
    "pixels to 255": ("rgb", lambda x: x * 255, "divide by 255"),
    "bytes": ("rgb", lambda x: (x * 255).to(torch.uint8), "float32.*255"),
    "float16": ("rgb", lambda x: x.half(), "float16, expected torch.float32"),
    "a pixel that is NaN": ("rgb", lambda x: x.masked_fill(x > 0.99, torch.nan), "nan"),
    "millimetres": ("skeleton", lambda x: x * 1000, "divide by 1000"),
    "joints that are NaN": ("skeleton", lambda x: x / 0, "NaN or infinity"),
    "float64 joints": ("skeleton", lambda x: x.double(), "float64, expected torch.float32"),
    "a label too high": ("label", lambda x: x + 5, "the model has 5 logits"),
    "a negative label": ("label", lambda x: x - 9, "label -.*5 logits"),
    "one-hot labels": ("label", lambda x: nn.functional.one_hot(x), "one-hot"),
    "no clips": ("rgb", lambda x: x[:0], "no clip"),
    "present as numbers": ("present", lambda x: x.float(), "expected torch.bool"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", NAMES)
def test_clips_that_are_not_what_they_must_be_are_refused(name, fault, model, clips, attack_of):
    field, spoil, message = FAULTS[fault]
    if name == "universal" and "logits" in message:
        pytest.skip("a universal perturbation asks no model and reads no label")
    spoilt = clips._replace(**{field: spoil(getattr(clips, field))})
    attack = attack_of(name)
    with pytest.raises(UserError, match=message):
        attack(model, spoilt, BOTH, seed=0)


@pytest.mark.parametrize("attack", [fgsm, partial(pgd, steps=2)])
def test_what_the_package_hands_out_by_name_looks_too(attack, model, clips):
    with pytest.raises(UserError, match="divide by 255"):
        attack(model, clips._replace(rgb=clips.rgb * 255), BOTH, seed=0)
    with pytest.raises(UserError, match="0.05 was meant"):
        attack(model, clips, ThreatModel(skeleton=Budget("Linf", 50.0)), seed=0)


def test_fitting_a_universal_perturbation_looks_at_every_batch(model, clips):
    with pytest.raises(UserError, match="divide by 1000"):
        spoilt = clips._replace(skeleton=clips.skeleton * 1000)
        fit_universal(model, [clips, spoilt], BOTH, epochs=1)


def test_joints_in_pixels_are_taken_when_their_unit_is_said(model, clips):
    far = clips._replace(skeleton=clips.skeleton * 500)
    threat = ThreatModel(skeleton=Budget("Linf", 3.0))
    for name in ("pgd", "square"):
        with pytest.raises(UserError, match="metres"):
            ATTACKS[name](model, far, threat, seed=0, **FEW[name])
        found = ATTACKS[name](model, far, threat, seed=0, unit="pixels", **FEW[name])
        threat.check(far, found)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_look_costs_no_pass_and_changes_no_figure(name, model, clips):
    checked, plain = Counter(model), Counter(model)
    attack = ATTACKS[name]
    found = attack(checked, clips, BOTH, seed=3, **FEW.get(name, {}))
    expected = attack.unchecked(plain, clips, BOTH, seed=3, **FEW.get(name, {}))
    assert torch.equal(found.rgb, expected.rgb) and torch.equal(found.skeleton, expected.skeleton)
    assert checked.forwards == plain.forwards and checked.backwards == plain.backwards


class Plain(nn.Module):
    """Logits [B, K] as a tensor, changed by `answer`."""

    def __init__(self, model, answer):
        super().__init__()
        self.model, self.answer = model, answer

    def forward(self, *inputs):
        return self.answer(self.model(*inputs).logits)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: (x, x), "tuple"),
        (lambda x: {"logits": x}, "dict"),
        (lambda x: x[:, :1], "at least 2"),
        (lambda x: x.sum(), r"expected logits \[B, K\]"),
        (lambda x: x.argmax(1, keepdim=True).expand(-1, 5), "torch.int64"),
    ],
)
@pytest.mark.parametrize("name", [*PLAIN, "transfer"])
def test_models_without_logits_are_refused(name, answer, message, model, clips, attack_of):
    with pytest.raises(UserError, match=message):
        attack_of(name)(Plain(model, answer), clips, BOTH, seed=0)


ANSWERS = {
    "NaN": lambda x: x * torch.nan,
    "infinite": lambda x: x / 0,
    "probabilities": lambda x: x.softmax(1),
    "two classes": lambda x: x[:, :2],
    "float16 logits": lambda x: x.half(),
}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("name", [*PLAIN, "transfer"])
def test_odd_logits_leave_clips_in_their_budget(name, answer, model, clips, attack_of):
    threat = ThreatModel(BOTH.rgb, L2.skeleton)
    few = clips._replace(label=clips.label % 2) if answer == "two classes" else clips
    found = attack_of(name)(Plain(model, ANSWERS[answer]), few, threat, seed=0)
    threat.check(few, found)


class Sums(nn.Module):
    """A plain sum of each input: its gradient is one number, expanded over all places."""

    def forward(self, rgb, skeleton, present):
        total = 0.1 * rgb.flatten(1).sum(1) + 0.1 * skeleton.flatten(1).sum(1)
        total = total - total.detach() + 1  # not so sure that softmax has no gradient left
        return torch.stack([total, -total, 0 * total], 1)


@pytest.mark.parametrize("threat", [BOTH, L2], ids=["Linf", "L2"])
@pytest.mark.parametrize("name", PLAIN)
def test_a_gradient_that_is_expanded_can_be_followed(name, threat, clips):
    few = clips._replace(label=clips.label * 0)
    found = ATTACKS[name](Sums(), few, threat, seed=0, **FEW.get(name, {}))
    threat.check(few, found)
    if name == "fgsm" and threat is BOTH:
        allowed = few.present[:, None, :, None].expand_as(few.skeleton)
        step = (found.skeleton - few.skeleton)[allowed]
        assert torch.allclose(step, torch.full_like(step, -0.05), atol=1e-6)


def strided(x):
    """The same values with another layout in memory."""
    return x.transpose(-1, -2).contiguous().transpose(-1, -2)


@pytest.mark.parametrize("name", NAMES)
def test_the_layout_in_memory_changes_nothing(name, model, clips, attack_of):
    threat = ThreatModel(BOTH.rgb, L2.skeleton)
    odd = clips._replace(
        rgb=strided(clips.rgb), skeleton=strided(clips.skeleton), present=strided(clips.present)
    )
    assert not odd.rgb.is_contiguous()
    kept = odd.rgb.clone(), odd.skeleton.clone()
    found = attack_of(name)(model, odd, threat, seed=0)
    expected = attack_of(name)(model, clips, threat, seed=0)
    threat.check(clips, found)
    assert torch.equal(odd.rgb, kept[0]) and torch.equal(odd.skeleton, kept[1])
    # Rounding of a sum may depend on the layout, and with it the sign of a gradient near zero.
    assert ((found.rgb - expected.rgb).abs() > 1e-5).float().mean() < 0.01


@pytest.mark.parametrize("name", NAMES)
def test_frames_that_share_memory_are_attacked_apart(name, model, clips, attack_of):
    """A still picture expanded to a video: each of its frames may change differently."""
    still = clips._replace(rgb=clips.rgb[:, :, :1].expand_as(clips.rgb))
    kept = still.rgb.clone()
    found = attack_of(name)(model, still, BOTH, seed=0)
    BOTH.check(still, found)
    assert torch.equal(still.rgb, kept)


@pytest.mark.parametrize("name", NAMES)
def test_one_clip_and_a_model_in_training_mode(name, make_model, clips, attack_of):
    net = make_model().train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    one = clips.select(torch.tensor([1]))
    found = attack_of(name)(net, one, BOTH, seed=0)
    BOTH.check(one, found)
    assert net.training and all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    again = attack_of(name)(net.eval(), one, BOTH, seed=0)
    assert torch.equal(found.rgb, again.rgb) and torch.equal(found.skeleton, again.skeleton)
