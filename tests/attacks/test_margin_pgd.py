"""PGD on the margin: its passes, its indifference to the scale of logits, and what it breaks."""

import pytest
import torch
from torch import nn

from components.attacks import Budget, Counter, ThreatModel
from components.attacks.losses import cross_entropy, margin_loss, soft_margin
from components.attacks.margin_pgd import margin_pgd
from components.attacks.pgd import pgd, start_seeds
from components.attacks.square import square
from components.batch import ModelOutput
from components.errors import UserError

NARROW = ThreatModel(Budget("Linf", 0.012), Budget("Linf", 0.012))


class Scaled(nn.Module):
    """The same decisions with logits `factor` times as large."""

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.inner, self.factor = model, factor

    def forward(self, rgb, skeleton, present):
        return ModelOutput(self.inner(rgb, skeleton, present).logits * self.factor, {}, {}, {})


@pytest.fixture(scope="module")
def clips(model, make_batch):
    return make_batch(model, size=12)


def test_passes_of_a_clip_that_stands(model, clips, wrong):
    counter = Counter(model)
    found = margin_pgd(counter, clips, NARROW.scaled(0.01, 0.01), seed=0)
    assert not wrong(model, found).any()
    assert set(counter.forwards.values()) == {32}, "60 passes with the look that follows"
    assert set(counter.backwards.values()) == {27}
    counter.reset()
    few = {"steps": 0, "n_targets": 9, "target_steps": 2}
    margin_pgd(counter, clips, NARROW.scaled(0.01, 0.01), seed=0, **few)
    assert set(counter.backwards.values()) == {8}, "five classes have four wrong ones"


def test_one_step_goes_somewhere(model, clips, wrong):
    """The end of a run is returned although it was only looked at, not fooled by."""
    found = margin_pgd(model, clips, NARROW.scaled(0.01, 0.01), seed=0, steps=1, n_targets=0)
    assert not wrong(model, found).any()
    assert (found.rgb != clips.rgb).any((1, 2, 3, 4)).all()
    strong = NARROW.scaled(20, 20)
    one = margin_pgd(model, clips, strong, seed=0, steps=1, n_targets=0)
    start = strong.random_start(clips, start_seeds(strong.region(clips), 0, "margin_pgd/soft"))
    before = clips._replace(rgb=start[0], skeleton=start[1])
    assert wrong(model, one).sum() > wrong(model, before).sum()


def test_every_run_is_looked_at_to_its_end(model, clips, wrong):
    """What a run's last step breaks is found, also when other runs follow."""
    broke = []
    for parameters in ({"n_targets": 0}, {}):
        found = margin_pgd(model, clips, NARROW, seed=0, steps=2, **parameters)
        broke.append(wrong(model, found))
    assert broke[0].any()
    assert (broke[1] | ~broke[0]).all()


def test_clips_that_are_fooled_stop_costing(model, clips, wrong):
    counter = Counter(model)
    found = margin_pgd(counter, clips, NARROW.scaled(20, 20), seed=0)
    assert wrong(model, found).all()
    assert max(counter.backwards.values()) < 27


@pytest.mark.parametrize("factor", [0.25, 16.0])
def test_the_scale_of_logits_decides_nothing(factor, model, clips):
    """Powers of two, so that the scaled logits are exact. PGD on cross-entropy is not so."""
    plain = margin_pgd(model, clips, NARROW, seed=0)
    scaled = margin_pgd(Scaled(model, factor), clips, NARROW, seed=0)
    assert (plain.rgb - scaled.rgb).abs().mean() < 1e-4
    assert (plain.skeleton - scaled.skeleton).abs().mean() < 1e-4


def test_soft_margin_lies_above_the_margin_by_at_most_log_k_over_the_sharpness():
    g = torch.Generator().manual_seed(0)
    logits, label = torch.randn(64, 7, generator=g) * 3, torch.arange(64) % 7
    for sharpness in (0.5, 2.0, 50.0):
        b = torch.full((64,), sharpness)
        above = soft_margin(logits, label, b) - margin_loss(logits, label)
        assert (above >= -1e-5).all()
        assert (above <= torch.log(torch.tensor(6.0)) / sharpness + 1e-5).all()


def test_soft_margin_climbs_in_the_direction_of_the_sharpened_cross_entropy():
    logits = torch.randn(5, 9, generator=torch.Generator().manual_seed(1), requires_grad=True)
    label, b = torch.arange(5), torch.full((5,), 3.0)
    (one,) = torch.autograd.grad(soft_margin(logits, label, b).sum(), logits)
    (other,) = torch.autograd.grad(cross_entropy(3.0 * logits, label).sum(), logits)
    cosine = torch.nn.functional.cosine_similarity(one, other, dim=1)
    assert torch.allclose(cosine, torch.ones(5), atol=1e-5)


@pytest.mark.parametrize("factor", [0.25, 16.0])
def test_the_margin_of_training_has_no_scale_either(factor, model, clips):
    """PGD on `soft_margin` moves the same way whatever the logits' scale; on cross-entropy not."""
    scaled = Scaled(model, factor)
    for loss, same in (("soft_margin", True), ("ce", False)):
        one = pgd(model, clips, NARROW, seed=0, steps=4, loss=loss)
        other = pgd(scaled, clips, NARROW, seed=0, steps=4, loss=loss)
        assert torch.equal(one.skeleton, other.skeleton) == same


def test_breaks_at_least_what_pgd_of_equal_cost_breaks(model, clips, wrong):
    for cell in ("rgb", "skeleton", "both"):
        threat = NARROW.cell(cell)
        ours = wrong(model, margin_pgd(model, clips, threat, seed=0)).sum()
        usual = wrong(model, pgd(model, clips, threat, seed=0, steps=30, keep="best")).sum()
        assert ours >= usual


@pytest.mark.parametrize(
    "parameters", [{"steps": 0, "n_targets": 0}, {"steps": -1}, {"steps": 0, "target_steps": 0}]
)
def test_no_steps_at_all_are_refused(parameters, model, clips):
    with pytest.raises(UserError, match="needs steps: got steps="):
        margin_pgd(model, clips, NARROW, seed=0, **parameters)


def test_square_gives_up_what_its_own_record_says_will_stand(model, clips, wrong):
    whole, given_up = Counter(model), Counter(model)
    threat = NARROW.scaled(0.6, 0.6)
    one = square(whole, clips, threat, seed=0, queries=600)
    other = square(given_up, clips, threat, seed=0, queries=600, give_up=True)
    stands = ~wrong(model, one)
    assert torch.equal(wrong(model, other), ~stands)
    assert 0 < stands.sum() < clips.size
    cost = [given_up.forwards[c] for c, s in zip(clips.clip_id, stands, strict=True) if s]
    assert max(cost) < 600
