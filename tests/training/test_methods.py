"""Every method trains; its examples keep to what its paper says, its loss is the paper's."""

import math

import pytest
import torch
import torch.nn.functional as F

from components.attacks import frozen
from components.errors import UserError
from components.training import losses
from components.training.loop import train_epochs
from components.training.methods import METHODS, InnerProblem, Method, pgd_at
from tests._support.train import train_settings


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_the_classes(method, fresh, section, data, threat):
    train = section(method=method, epochs=4, lr=5e-3, attack={"steps": 2})
    rows = list(train_epochs(fresh(train), data, train, threat, seed=0))
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["val_clean_acc"] > 0.6  # chance is a third
    assert rows[-1]["val_robust_acc_worst"] <= rows[-1]["val_clean_acc"]
    assert (rows[-1]["train_robust_acc"] is None) == (method == "natural")


def crafted(method, fresh, section, clips, threat, seed=3, rollbacks=0):
    train = train_settings(method=method, steps=3)
    model = fresh(section()).model
    return METHODS[method].craft(InnerProblem(model, clips, threat, train, seed, rollbacks))


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
        assert METHODS[method].attack_steps(train_settings(steps=7)) == 1
        assert METHODS[method].attack_steps(train_settings(steps=7), rollbacks=2) == 4
        adv = crafted(method, fresh, section, clips, threat, rollbacks=1)
        threat.check(clips, adv)
    assert METHODS["pgd_at"].attack_steps(train_settings(steps=5), rollbacks=1) == 10
    assert METHODS["free"].passes(train_settings(steps=5), rollbacks=1) == 10


def test_start_depends_on_seed_and_clip_alone(fresh, section, clips, threat):
    whole = crafted("pgd_at", fresh, section, clips, threat)
    part = clips.select(torch.tensor([5, 2]))
    alone = crafted("pgd_at", fresh, section, part, threat)
    assert torch.allclose(alone.rgb, whole.rgb[[5, 2]], atol=1e-6)
    other = crafted("pgd_at", fresh, section, clips, threat, seed=4)
    assert not torch.equal(other.rgb, whole.rgb)


def test_a_cell_leaves_the_other_modality_alone(fresh, section, clips, threat):
    for method in list(METHODS)[1:]:
        adv = crafted(method, fresh, section, clips, threat.cell("skeleton"))
        assert torch.equal(adv.rgb, clips.rgb), method
        assert not torch.equal(adv.skeleton, clips.skeleton), method


def test_trades_attack_raises_the_divergence(fresh, section, clips, threat):
    model = fresh(section()).model
    train = train_settings(method="trades", steps=5)
    still = train_settings(method="trades", steps=0)
    adv = METHODS["trades"].craft(InnerProblem(model, clips, threat, train, 0))
    start = METHODS["trades"].craft(InnerProblem(model, clips, threat, still, 0))
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
        assert float(losses.trades(clean, adv, label, 6.0)[i]) == pytest.approx(expected, 1e-5)
        wrong = max(float(q[i, k]) for k in range(3) if k != label[i])
        boosted = -math.log(q[i, label[i]]) - math.log(1 - wrong)
        expected = boosted + 5.0 * divergence * (1 - float(p[i, label[i]]))
        assert float(losses.mart(clean, adv, label, 5.0)[i]) == pytest.approx(expected, 1e-5)


def test_free_reuses_the_gradient_of_the_weights_backward(fresh, section, clips, threat):
    model = fresh(section()).model
    train = train_settings(method="free", steps=2)
    first = METHODS["free"].craft(InnerProblem(model, clips, threat, train, 0))
    METHODS["free"].minimise(model, clips, first, train).loss.sum().backward()
    step = first.skeleton.detach() + 0.05 * first.skeleton.grad.sign()
    second = METHODS["free"].craft(InnerProblem(model, clips, threat, train, 0, 0, first))
    low, high = clips.skeleton - 0.05, clips.skeleton + 0.05
    expected = step.clamp(low, high)[..., 0]
    assert torch.allclose(second.skeleton.detach()[..., 0], expected, atol=1e-6)


def test_early_stop_of_trades_is_refused():
    with pytest.raises(UserError, match="early_stop"):
        train_settings(method="trades", early_stop=True)


def test_a_loss_that_the_method_does_not_climb_is_refused():
    with pytest.raises(UserError, match="soft_margin is for pgd_at and mart; trades says itself"):
        train_settings(method="trades", loss="soft_margin")
    assert train_settings(method="mart", loss="soft_margin").attack.loss == "soft_margin"


def test_a_method_is_added_by_one_entry_and_runs(monkeypatch, fresh, section, data, threat):
    """PGD whose examples are averaged with the clean clips, as a user would add it."""

    def craft(problem):
        adversarial = pgd_at.METHOD.craft(problem)
        clean = problem.clean
        return clean._replace(
            rgb=(clean.rgb + adversarial.rgb) / 2,
            skeleton=(clean.skeleton + adversarial.skeleton) / 2,
        )

    monkeypatch.setitem(METHODS, "halfway", Method(craft, pgd_at.METHOD.minimise))
    train = section(method="halfway", epochs=2, lr=5e-3, attack={"steps": 2})
    rows = list(train_epochs(fresh(train), data, train, threat, seed=0))
    assert rows[-1]["loss"] < rows[0]["loss"]


@pytest.mark.parametrize("world", [1, 2])
def test_an_unknown_method_names_the_nearest(world, monkeypatch, fresh, section, data, threat):
    """Settings made in code pass no stage, and a bare KeyError would be Ray's to try again."""
    monkeypatch.setattr("components.training.loop.world_size", lambda: world)
    train = section(method="pgdat")
    with pytest.raises(UserError, match="no training method 'pgdat'; did you mean 'pgd_at'"):
        next(train_epochs(fresh(train), data, train, threat, seed=0))
