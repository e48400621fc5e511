"""Attacks on AMR do what their names say: weights move, heads fall, plain models are refused."""

import pytest
import torch

from components.attacks import ADAPTIVE, Budget, Counter, ThreatModel, applicable, transfer
from components.attacks.adaptive import _attention, _weakest, attention, cross, heads, weakest_head
from components.attacks.pgd import pgd
from components.batch import ModelOutput

TIGHT = ThreatModel(Budget("Linf", 0.02), Budget("Linf", 0.02))


@pytest.fixture(scope="module")
def clips(model, make_batch):
    return make_batch(model, size=6)


def out(model, clips):
    with torch.no_grad():
        return model(*clips[:3])


@pytest.mark.parametrize(("cell", "column"), [("rgb", 0), ("skeleton", 1), ("both", 0)])
def test_attention_is_pushed_onto_and_off_the_touched_modality(cell, column, model, clips):
    threat = TIGHT.scaled(0.25, 0.25).cell(cell)  # too little to fool, enough to steer
    options = {"seed": 0, "steps": 20, "weight": 100.0}
    towards = attention(model, clips, threat, trust="touched", **options)
    away = attention(model, clips, threat, trust="other", **options)
    clean, near, far = (out(model, b).weights["logits"][:, column] for b in (clips, towards, away))
    assert (near > clean).all() and (far < clean).all()


def test_a_named_modality_can_be_trusted(model, clips):
    one = attention(model, clips, TIGHT, seed=0, steps=5, trust="rgb", weight=9.0)
    two = attention(model, clips, TIGHT, seed=0, steps=5, trust="skeleton", weight=9.0)
    near, far = (out(model, b).weights["logits"][:, 0].mean() for b in (one, two))
    assert near > far
    with pytest.raises(ValueError, match="touched, other, rgb or skeleton"):
        attention(model, clips, TIGHT, seed=0, trust="audio")


@pytest.mark.parametrize("attack", [heads, weakest_head])
def test_a_fusion_that_hides_its_gradient_falls_through_its_heads(attack, model, clips):
    def hidden(rgb, skeleton, present):
        output = model(rgb, skeleton, present)
        return output._replace(logits=output.logits.detach())

    options = {"seed": 0, "steps": 10}
    blind = pgd(hidden, clips, TIGHT, random_start=False, keep="best", **options)
    assert (out(model, blind).logits.argmax(1) == clips.label).all()
    found = attack(hidden, clips, TIGHT, **options)
    assert (out(model, found).logits.argmax(1) != clips.label).float().mean() >= 0.5


def test_weakest_head_turns_to_the_head_that_still_holds():
    aux = {"rgb": torch.tensor([[0.0, 3.0]]), "skeleton": torch.tensor([[2.0, 0.0]])}
    output = ModelOutput(torch.tensor([[1.0, 0.0]]), aux, {}, {})
    assert _weakest(output, torch.tensor([0])).item() == pytest.approx(-1.0 - 2.0)
    assert _weakest(output, torch.tensor([1])).item() == pytest.approx(1.0 - 3.0)


def test_cross_goes_through_the_other_stream(clips):
    """Video cannot change its own head here, only gate the skeleton's: cross still finds that."""

    def gated(rgb, skeleton, present):
        gate = 1 - 40 * (rgb - clips.rgb).mean((1, 2, 3, 4))
        zero = torch.zeros_like(gate)
        aux = {
            "rgb": torch.stack([zero, zero], 1),
            "skeleton": torch.stack([gate, zero], 1),
        }
        return ModelOutput(aux["skeleton"] + 0.001, aux, {}, {})

    first = clips._replace(label=torch.zeros_like(clips.label))
    threat = ThreatModel(Budget("Linf", 0.04), Budget("Linf", 0.04)).cell("rgb")
    found = cross(gated, first, threat, seed=0, steps=10)
    assert (gated(*found[:3]).logits.argmax(1) == 1).all()


def test_cross_costs_one_backward_per_touched_modality(model, clips):
    counter = Counter(model)
    cross(counter, clips, TIGHT, seed=0, steps=8)
    assert (counter.forwards["clip0"], counter.backwards["clip0"]) == (8, 4 * 2 + 4)


def test_which_attacks_a_model_can_meet(model, clips):
    def plain(rgb, skeleton, present):
        return model(rgb, skeleton, present).logits

    def headless(rgb, skeleton, present):
        return model(rgb, skeleton, present)._replace(aux={})

    assert set(applicable(model, clips)) == set(ADAPTIVE)
    assert applicable(headless, clips) == ("attention_touched", "attention_other")
    assert applicable(plain, clips) == ()
    for name, attack in ADAPTIVE.items():
        with pytest.raises(ValueError, match="applicable"):
            attack(plain, clips, TIGHT, seed=0, steps=2)
        if name not in applicable(headless, clips):
            with pytest.raises(ValueError, match="aux"):
                attack(headless, clips, TIGHT, seed=0, steps=2)


@pytest.mark.parametrize("name", ["attention_touched", "attention_other", "cross"])
def test_a_threat_that_allows_nothing_is_an_error_for_those_who_choose_a_stream(name, model, clips):
    with pytest.raises(ValueError, match="allows none; give a budget"):
        ADAPTIVE[name](model, clips, ThreatModel(), seed=0, steps=2)


def test_grouped_weights_are_read_as_well(model, clips):
    def grouped(rgb, skeleton, present):
        output = model(rgb, skeleton, present)
        by_group = output.weights["logits"][:, None].expand(-1, 4, -1)
        return output._replace(weights={**output.weights, "stage2": by_group})

    adv = attention(grouped, clips, TIGHT.cell("rgb"), seed=0, steps=5, weight=50.0)
    assert (out(model, adv).weights["logits"] > out(model, clips).weights["logits"])[:, 0].all()


def test_transfer_asks_the_source_alone(model, clips, make_model):
    twin, target = Counter(make_model(seed=5)), Counter(model)
    found = transfer(target, clips, TIGHT, seed=0, source=twin, steps=4)
    direct = pgd(twin.model, clips, TIGHT, seed=0, steps=4)
    assert torch.equal(found.rgb, direct.rgb)
    assert target.passes("clip0") == 8, "the attacked model's bill shows what the attack cost"


def test_weights_of_several_stages_count_by_their_mean(model, clips):
    """A fusion after two stages is not attacked twice as hard as one after a single stage."""
    once = out(model, clips)
    (weights,) = once.weights.values()
    twice = once._replace(weights={"early": weights, "late": weights})
    alone, both = (_attention(o, clips.label, column=0, weight=1.0) for o in (once, twice))
    assert torch.allclose(alone, both)
