"""Every method trains; its examples keep to what its paper says, its loss is the paper's."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from components.attacks import frozen
from components.models import build_model
from components.training import losses
from components.training.craft import Inner
from components.training.loop import train_epochs
from components.training.methods import METHODS
from components.training.recipe import NAMES, Recipe


@pytest.mark.parametrize("method", NAMES)
def test_every_method_learns_the_classes(method, fresh, section, data, threat):
    train = section(method=method, epochs=4, lr=5e-3, attack={"steps": 2})
    rows = list(train_epochs(fresh(train), data, train, threat, seed=0))
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["val_clean_acc"] > 0.6  # chance is a third
    assert rows[-1]["val_robust_acc_worst"] <= rows[-1]["val_clean_acc"]
    assert (rows[-1]["train_robust_acc"] is None) == (method == "natural")


def crafted(method, fresh, section, clips, threat, seed=3, **changes):
    recipe = Recipe(method=method, steps=3, **changes)
    model = fresh(section()).model
    return METHODS[method].craft(Inner(model, clips, threat, recipe, seed))


@pytest.mark.parametrize("method", ["pgd_at", "trades", "mart", "fgsm_rs", "free"])
def test_examples_keep_to_the_budget(method, fresh, section, clips, threat):
    adv = crafted(method, fresh, section, clips, threat)
    threat.check(clips, adv)
    assert not torch.equal(adv.rgb, clips.rgb)
    assert not torch.equal(adv.skeleton, clips.skeleton)


def test_nfgsm_leaves_the_budget_but_not_bounds_or_persons(fresh, section, clips, threat):
    adv = crafted("nfgsm", fresh, section, clips, threat)
    moved = (adv.skeleton - clips.skeleton).abs()
    assert 0.05 < float(moved.max()) <= 3 * 0.05 + 1e-6
    assert float(moved[..., 1].max()) == 0.0  # nobody is there
    assert float(adv.rgb.min()) >= 0.0 and float(adv.rgb.max()) <= 1.0


def test_after_a_rollback_single_step_methods_take_more_steps(fresh, section, clips, threat):
    for method in ("fgsm_rs", "nfgsm"):
        assert Recipe(method=method, steps=7).attack_steps == 1
        assert Recipe(method=method, steps=7, boost=2).attack_steps == 4
        adv = crafted(method, fresh, section, clips, threat, boost=1)
        threat.check(clips, adv)
    assert Recipe(steps=5, boost=1).attack_steps == 10


def test_an_attack_on_the_heads_too_reaches_a_stream_the_fusion_does_not_need(
    clips, threat, model_config
):
    linear = {**model_config["model"], "amr": {"prototype_scale": 0.0}}
    model = build_model({**linear, "num_classes": model_config["num_classes"]}).eval()
    model.heads["skeleton"].weight.data.mul_(1e6)  # the skeleton decides, and it is right
    with torch.no_grad():
        label = model(clips.rgb, clips.skeleton, clips.present).aux["skeleton"].argmax(1)
    clips = clips._replace(label=label)
    hurt = []
    for heads in (0.0, 1.0):
        recipe = Recipe(steps=5, heads=heads)
        adv = METHODS["pgd_at"].craft(Inner(model, clips, threat.cell("rgb"), recipe, 3))
        threat.check(clips, adv)
        with frozen(model) as net, torch.no_grad():
            output = net(adv.rgb, adv.skeleton, adv.present)
        hurt.append(float(F.cross_entropy(output.aux["rgb"], label)))
    assert hurt[1] > hurt[0]  # the fused loss alone has no gradient here


def test_start_depends_on_seed_and_clip_alone(fresh, section, clips, threat):
    whole = crafted("pgd_at", fresh, section, clips, threat)
    part = clips.select(torch.tensor([5, 2]))
    alone = crafted("pgd_at", fresh, section, part, threat)
    assert torch.allclose(alone.rgb, whole.rgb[[5, 2]], atol=1e-6)
    other = crafted("pgd_at", fresh, section, clips, threat, seed=4)
    assert not torch.equal(other.rgb, whole.rgb)


def test_a_cell_leaves_the_other_modality_alone(fresh, section, clips, threat):
    for method in NAMES[1:]:
        adv = crafted(method, fresh, section, clips, threat.cell("skeleton"))
        assert torch.equal(adv.rgb, clips.rgb), method
        assert not torch.equal(adv.skeleton, clips.skeleton), method


def test_trades_attack_raises_the_divergence(fresh, section, clips, threat):
    model = fresh(section()).model
    recipe = Recipe(method="trades", steps=5)
    adv = METHODS["trades"].craft(Inner(model, clips, threat, recipe, 0))
    start = METHODS["trades"].craft(Inner(model, clips, threat, replace(recipe, steps=0), 0))
    with frozen(model) as net, torch.no_grad():
        clean, near, far = (net(*b[:3]).logits for b in (clips, start, adv))
    assert float(losses.kl(clean, far).mean()) > float(losses.kl(clean, near).mean())


def test_trades_and_mart_by_hand():
    clean = torch.tensor([[2.0, 0.5, -1.0], [0.1, 0.2, 0.3]])
    adv = torch.tensor([[0.5, 1.0, -1.0], [0.3, -0.2, 0.9]])
    label = torch.tensor([0, 2])
    p, q = F.softmax(clean, 1), F.softmax(adv, 1)
    for i in range(2):
        divergence = sum(float(p[i, k]) * math.log(p[i, k] / q[i, k]) for k in range(3))
        expected = -math.log(p[i, label[i]]) + 6.0 * divergence
        assert float(losses.trades(clean, adv, label, 6.0, 0.0)[i]) == pytest.approx(expected, 1e-5)
        wrong = max(float(q[i, k]) for k in range(3) if k != label[i])
        boosted = -math.log(q[i, label[i]]) - math.log(1 - wrong)
        expected = boosted + 5.0 * divergence * (1 - float(p[i, label[i]]))
        assert float(losses.mart(clean, adv, label, 5.0, 0.0)[i]) == pytest.approx(expected, 1e-5)


def test_free_reuses_the_gradient_of_the_weights_backward(fresh, section, clips, threat):
    model = fresh(section()).model
    recipe = Recipe(method="free", steps=2)
    first = METHODS["free"].craft(Inner(model, clips, threat, recipe, 0))
    METHODS["free"].minimise(model, clips, first, recipe).loss.sum().backward()
    step = first.skeleton.detach() + 0.05 * first.skeleton.grad.sign()
    second = METHODS["free"].craft(Inner(model, clips, threat, recipe, 0, first))
    low, high = clips.skeleton - 0.05, clips.skeleton + 0.05
    expected = step.clamp(low, high)[..., 0]
    assert torch.allclose(second.skeleton.detach()[..., 0], expected, atol=1e-6)


def test_unknown_method_and_early_stop_of_trades_are_refused():
    with pytest.raises(ValueError, match="train.method must be one of"):
        Recipe(method="pgd")
    with pytest.raises(ValueError, match="early_stop"):
        Recipe(method="trades", early_stop=True)
