"""Auto-PGD: exact costs, its step sizes, its losses, and classes too few for the usual rules."""

import pytest
import torch

from components.attacks import Budget, Counter, ThreatModel, frozen, pgd
from components.attacks.apgd import _Run, apgd
from components.attacks.apgd_targeted import apgd_targeted
from components.attacks.gradient import value_and_grad
from components.attacks.losses import dlr, dlr_targeted, margin

BOTH = ThreatModel(Budget("Linf", 0.03), Budget("Linf", 0.03))


@pytest.fixture(scope="module")
def clips(model, make_batch):
    return make_batch(model, size=8)


def test_steps_plus_one_forward_passes(model, clips):
    counter = Counter(model)
    apgd(counter, clips, BOTH, seed=0, steps=12, early_stop=False)
    assert (counter.forwards["clip0"], counter.backwards["clip0"]) == (13, 12)
    counter.reset()
    apgd(counter, clips, BOTH, seed=0, steps=12, early_stop=False, n_restarts=2)
    assert (counter.forwards["clip0"], counter.backwards["clip0"]) == (26, 24)


def test_whoever_goes_back_to_the_peak_has_its_loss_and_its_gradient(model, clips):
    """What later steps gain is counted from there, not from the place that was given up."""
    seen = []

    class Watched(_Run):
        def _checkpoint(self, period):
            before = {name: x.clone() for name, x in self.x.items()}
            super()._checkpoint(period)
            moved = (self.x["rgb"] != before["rgb"]).flatten(1).any(1)
            _, value, grad = value_and_grad(self.net, self.region.batch, self.x, self.objective)
            assert torch.equal(self.value, value)
            assert all(torch.equal(self.grad[name], grad[name]) for name in grad)
            seen.append(int(moved.sum()))

    region = BOTH.region(clips, None)
    with frozen(model) as net:
        Watched(net, region, margin, region.start(), 0.75, None).climb(30, early_stop=False)
    assert sum(seen) > 0


def test_early_stop_changes_the_cost_alone(model, clips, wrong):
    full, part = Counter(model), Counter(model)
    threat = BOTH.scaled(0.4, 0.4)
    one = apgd(full, clips, threat, seed=0, steps=30, early_stop=False)
    other = apgd(part, clips, threat, seed=0, steps=30)
    assert torch.equal(wrong(model, one), wrong(model, other))
    assert 0 < wrong(model, one).sum() < clips.size
    assert part.forwards.total() < full.forwards.total()
    stood = ~wrong(model, one)
    assert all(part.forwards[c] == 31 for c, s in zip(clips.clip_id, stood, strict=True) if s)


def test_no_weaker_than_pgd_of_equal_cost(model, clips, wrong):
    for cell in ("rgb", "skeleton", "both"):
        threat = BOTH.cell(cell)
        for loss in ("ce", "dlr"):
            one = apgd(model, clips, threat, seed=0, steps=40, loss=loss)
            other = pgd(model, clips, threat, seed=0, steps=41, keep="best")
            assert wrong(model, one).sum() >= wrong(model, other).sum()


def test_each_modality_has_its_own_step_size(clips):
    """Video has its peak inside the ball and needs small steps; joints only ever gain."""
    target = (clips.rgb + 0.2 * 0.03).detach()

    def hill(rgb, skeleton, present):
        lack = 300 * (rgb - target).square().mean((1, 2, 3, 4))
        gain = (skeleton - clips.skeleton).mean((1, 2, 3, 4))
        return torch.stack([torch.zeros_like(gain), gain - lack - 10], 1)

    def loss(logits, label):
        return logits[:, 1]

    label = torch.zeros_like(clips.label)
    found = apgd(hill, clips._replace(label=label), BOTH, seed=0, steps=100, loss=loss)
    mask = clips.present[:, None, :, None, :].expand_as(clips.skeleton)
    assert torch.allclose((found.skeleton - clips.skeleton)[mask], torch.tensor(0.03), atol=2e-4)
    assert (found.rgb - target).abs().clamp(max=1).mean() < 0.1 * 0.03


def test_dlr_is_blind_to_scale_and_shift():
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    label, target = torch.arange(6) % 5, (torch.arange(6) + 1) % 5
    for loss in (dlr, lambda z, y: dlr_targeted(z, y, target)):
        assert torch.allclose(loss(logits, label), loss(7 * logits + 3, label), atol=1e-5)
    assert torch.equal(dlr(logits, label) > 0, margin(logits, label) > 0)


def test_dlr_by_hand():
    logits, label, target = (
        torch.tensor([[4.0, 1.0, 0.0, 2.0]]),
        torch.tensor([0]),
        torch.tensor([1]),
    )
    assert dlr(logits, label).item() == pytest.approx(-(4 - 2) / (4 - 1))
    assert dlr_targeted(logits, label, target).item() == pytest.approx(-(4 - 1) / (4 - 0.5))


@pytest.mark.parametrize("classes", [2, 3, 4, 12])
def test_any_number_of_classes(classes, make_model, make_batch, wrong):
    model = make_model(classes).eval()
    clips = make_batch(model)
    counter = Counter(model)
    threat = BOTH.scaled(3, 3)
    found = apgd_targeted(counter, clips, threat, seed=0, steps=10, n_targets=9)
    assert wrong(model, found).sum() >= 3
    assert counter.forwards.most_common(1)[0][1] <= 1 + 11 * min(9, classes - 1)
    dlr_found = apgd(model, clips, threat, seed=0, steps=10, loss="dlr")
    assert wrong(model, dlr_found).sum() >= 3


def test_a_clip_wrong_from_the_start_costs_one_pass(model, clips):
    counter = Counter(model)
    wrong_label = clips._replace(label=(clips.label + 1) % 5)
    apgd_targeted(counter, wrong_label, BOTH, seed=0, steps=10)
    assert counter.passes("clip0") == 1


def test_wrong_parameters_are_named(model, clips):
    for options in ({"steps": 0}, {"n_restarts": 0}):
        with pytest.raises(ValueError, match="steps >= 1 and n_restarts >= 1"):
            apgd(model, clips, BOTH, seed=0, **options)


def test_nine_targets_unless_asked_otherwise(make_model, make_batch):
    model = make_model(classes=12).eval()
    clips = make_batch(model, size=3)
    counter = Counter(model)
    apgd_targeted(counter, clips, BOTH.scaled(1e-4, 1e-4), seed=0, steps=2)
    assert set(counter.forwards.values()) == {1 + 9 * 3}  # the ranking, then steps + 1 a target
