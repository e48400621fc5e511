"""Sparse frames, flicker, universal, SMART and EoT each keep the form that makes them special."""

import pytest
import torch
from torch import nn

from components.attacks import (
    Budget,
    Counter,
    ThreatModel,
    acceleration_change,
    eot,
    fit_universal,
    universal,
)
from components.attacks.cw import cw
from components.attacks.eot import Averaged
from components.attacks.flicker import flicker
from components.attacks.plausible import bones_of
from components.attacks.smart import smart
from components.attacks.sparse import sparse_frames
from components.batch import Batch

BOTH = ThreatModel(Budget("Linf", 0.05), Budget("Linf", 0.06))


@pytest.fixture(scope="module")
def clips(model, make_batch):
    return make_batch(model, size=6)


@pytest.mark.parametrize("frames", [1, 2])
def test_sparse_changes_so_many_frames_per_stream(frames, model, clips):
    found = sparse_frames(model, clips, BOTH, seed=0, frames=frames, steps=3)
    for one, other in ((found.rgb, clips.rgb), (found.skeleton, clips.skeleton)):
        changed = (one != other).transpose(1, 2).flatten(2).any(2).sum(1)
        assert (changed <= frames).all() and changed.max() == frames


def test_sparse_picks_the_frame_that_matters(clips):
    def third(rgb, skeleton, present):
        seen = rgb[:, :, 2].mean((1, 2, 3)) - clips.rgb[:, :, 2].mean((1, 2, 3))
        return torch.stack([torch.full_like(seen, 0.02), seen], 1)

    first = clips._replace(label=torch.zeros_like(clips.label))
    found = sparse_frames(third, first, BOTH.cell("rgb"), seed=0, steps=4)
    assert (third(*found[:3]).argmax(1) == 1).all()
    assert torch.equal(found.rgb[:, :, :2], clips.rgb[:, :, :2])


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_flicker_is_one_offset_per_frame(norm, model, clips):
    grey = clips._replace(rgb=clips.rgb * 0.2 + 0.4)  # away from the bounds, which would cut
    threat = BOTH if norm == "Linf" else ThreatModel(Budget("L2", 0.5), Budget("L2", 0.8))
    found = flicker(model, grey, threat, seed=0, steps=4)
    light = found.rgb - grey.rgb
    place = (found.skeleton - grey.skeleton) * grey.present[:, None, :, None, :]
    assert light.std((3, 4)).max() < 1e-6 and light.abs().max() > 0
    assert place.std(3).max() < 1e-6 and place.abs().max() > 0
    threat.check(grey, found)


def test_universal_is_one_change_for_all_clips_and_fools(model, make_batch, clips, wrong):
    threat = ThreatModel(Budget("Linf", 0.3, -9, 9), Budget("Linf", 0.3))
    delta = fit_universal(model, [make_batch(model, size=8, seed=5)], threat, epochs=30)
    assert delta["rgb"].shape == (1, 3, 4, 8, 8) and delta["rgb"].abs().max() <= 0.3
    found = universal(model, clips, threat, seed=0, delta=delta)
    change = found.rgb - clips.rgb
    assert (change - change[:1]).abs().max() < 1e-6
    assert wrong(model, found).float().mean() > 0.3
    small = ThreatModel(Budget("L2", 0.3), Budget("L2", 0.3))
    fitted = fit_universal(model, [clips], small, epochs=2)
    assert fitted["skeleton"].norm() <= 0.3001


def test_universal_says_what_it_misses(model, clips):
    with pytest.raises(ValueError, match="got nothing"):
        universal(model, clips, BOTH, seed=0, delta={})
    with pytest.raises(ValueError, match="shape"):
        universal(model, clips, BOTH, seed=0, delta={"rgb": torch.zeros(1, 3, 2, 8, 8)})
    with pytest.raises(ValueError, match="at least one batch"):
        fit_universal(model, [], BOTH)


def test_smart_is_gentler_on_the_body_than_a_plain_attack(model, clips, wrong):
    threat = BOTH.cell("skeleton").scaled(skeleton=3)
    plain = cw(model, clips, threat, seed=0, steps=30)
    soft = smart(model, clips, threat, seed=0, steps=30)
    both = wrong(model, plain) & wrong(model, soft)
    assert both.sum() >= 3

    def bend(found: Batch) -> torch.Tensor:
        return acceleration_change(clips.skeleton, found.skeleton, clips.present)[both].mean()

    def stretch(found: Batch) -> torch.Tensor:
        change = bones_of(found.skeleton).norm(dim=1) - bones_of(clips.skeleton).norm(dim=1)
        return change[both].square().mean()

    assert bend(soft) < 0.7 * bend(plain) and stretch(soft) < 0.7 * stretch(plain)


class Noisy(nn.Module):
    """A model whose output is drowned in noise; one gradient says little."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = model

    def forward(self, rgb, skeleton, present):
        return self.inner(rgb + 0.5 * torch.randn_like(rgb), skeleton, present)


def test_eot_is_seeded_leaves_the_generator_and_charges_each_sample(model, clips):
    noisy = Counter(Noisy(model))
    torch.manual_seed(9)
    state = torch.get_rng_state()
    one = eot(noisy, clips, BOTH, seed=0, samples=3, steps=4, early_stop=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert noisy.forwards["clip0"] == 3 * 5 and noisy.backwards["clip0"] == 3 * 4
    torch.manual_seed(10)
    two = eot(noisy, clips, BOTH, seed=0, samples=3, steps=4, early_stop=False)
    assert torch.equal(one.rgb, two.rgb) and torch.equal(one.skeleton, two.skeleton)


def test_averaging_keeps_all_parts_of_the_output(model, clips):
    single, mean = model(*clips[:3]), Averaged(model, 4)(*clips[:3])
    assert torch.allclose(mean.logits, single.logits.log_softmax(1), atol=1e-5)
    for part in ("aux", "weights"):
        for name, value in getattr(single, part).items():
            assert torch.allclose(getattr(mean, part)[name], value, atol=1e-6)
    with pytest.raises(ValueError, match="samples"):
        Averaged(model, 0)


def test_a_universal_perturbation_in_l2_ends_on_its_sphere(model, clips):
    threat = ThreatModel(Budget("L2", 0.4), Budget("L2", 0.3))
    delta = fit_universal(model, [clips], threat, epochs=6, rel_alpha=0.5)
    for name, eps in (("rgb", 0.4), ("skeleton", 0.3)):
        assert float(delta[name].norm()) == pytest.approx(eps, rel=1e-5)
    small = fit_universal(model, [clips], threat, epochs=1, rel_alpha=0.5)
    assert float(small["rgb"].norm()) == pytest.approx(0.2, rel=1e-5)  # inside: left as it is


def test_flicker_takes_a_gradient_that_is_no_number_for_none(clips):
    """A root of 0 has no slope; where nothing pulls, nothing may be moved."""

    def rooted(rgb, skeleton, present):
        flat = (rgb - clips.rgb).square().sum((1, 2, 3, 4)).sqrt()
        bodies = skeleton.mean((1, 2, 3, 4))
        return torch.stack([bodies, 0 * flat + 1e-9], 1)

    zero = clips._replace(label=torch.zeros_like(clips.label))
    rgb_alone = ThreatModel(rgb=BOTH.rgb)
    found = flicker(rooted, zero, rgb_alone, seed=0, steps=1)
    assert torch.equal(found.rgb, clips.rgb)
