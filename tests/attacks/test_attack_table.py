"""One table of attacks, one set of promises that each keeps in every norm and cell."""

from functools import partial

import pytest
import torch

from components.attacks import (
    ATTACKS,
    CELLS,
    Budget,
    Counter,
    ThreatModel,
    fit_universal,
    transfer,
    universal,
)

SMALL = {
    "pgd": {"steps": 5, "n_restarts": 2},
    "mifgsm": {"steps": 5},
    "cw": {"steps": 5},
    "apgd_ce": {"steps": 9},
    "apgd_dlr": {"steps": 9},
    "apgd_t": {"steps": 6, "n_targets": 3},
    "square": {"queries": 60},
    "hard_label": {"queries": 25},
    "smart": {"steps": 6},
    "sparse_frames": {"steps": 5},
    "flicker": {"steps": 5},
    "eot": {"samples": 2, "steps": 4},
    "attention_touched": {"steps": 6},
    "attention_other": {"steps": 6},
    "heads": {"steps": 6},
    "weakest_head": {"steps": 6},
    "cross": {"steps": 6},
}
NAMES = [*ATTACKS, "transfer", "universal"]
THREATS = {
    "Linf": ThreatModel(Budget("Linf", 0.04), Budget("Linf", 0.05)),
    "L2": ThreatModel(Budget("L2", 0.8), Budget("L2", 1.2)),
    "held": ThreatModel(
        Budget("Linf", 0.04, frames=2),
        Budget("Linf", 0.05),
        bone_length=0.1,
        acceleration=0.03,
    ),
}


@pytest.fixture(scope="module")
def model(make_model):
    return make_model()


@pytest.fixture(scope="module")
def batch(model, make_batch):
    return make_batch(model)


@pytest.fixture(scope="module")
def attack_of(model, batch, make_model):
    def make(name, threat):
        if name == "transfer":
            return partial(transfer, source=make_model(seed=7), steps=4)
        if name == "universal":
            return partial(universal, delta=fit_universal(model, [batch], threat, epochs=3))
        return partial(ATTACKS[name], **SMALL.get(name, {}))

    return make


def same(a, b, tolerance=0.0):
    return all(
        (x - y).abs().max().item() <= tolerance
        for x, y in ((a.rgb, b.rgb), (a.skeleton, b.skeleton))
    )


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("norm", list(THREATS))
@pytest.mark.parametrize("name", NAMES)
def test_every_attack_keeps_the_threat_and_the_model(
    name, norm, cell, model, batch, attack_of, wrong
):
    threat = THREATS[norm].cell(cell)
    attack = attack_of(name, threat)
    model.train()
    model.video[1].eval()  # a mixed state must come back mixed
    next(model.parameters()).requires_grad_(False)
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    wants = [p.requires_grad for p in model.parameters()]
    random = torch.get_rng_state()

    adversarial = attack(model, batch, threat, seed=3)

    threat.check(batch, adversarial)
    assert adversarial.rgb.requires_grad is adversarial.skeleton.requires_grad is False
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == wants
    assert torch.equal(next(model.parameters()).grad, torch.ones(6, 3, 3, 3, 3))
    assert all(p.grad is None for p in list(model.parameters())[1:])
    assert torch.equal(torch.get_rng_state(), random)
    model.train(False)
    next(model.parameters()).requires_grad_(True)
    next(model.parameters()).grad = None

    mislabelled = batch._replace(label=(batch.label + 1) % 5)
    kept = attack(model, mislabelled, threat, seed=3)
    if name not in ("transfer", "universal"):
        assert wrong(model, kept).all(), "a clip that was wrong before must be wrong after"


@pytest.mark.parametrize("name", NAMES)
def test_every_attack_repeats_itself_and_ignores_the_neighbours(name, model, batch, attack_of):
    threat = THREATS["Linf"]
    attack = attack_of(name, threat)
    first = attack(model, batch, threat, seed=3)
    assert same(first, attack(model, batch, threat, seed=3))
    order = torch.tensor([2, 0])
    apart = attack(model, batch.select(order), threat, seed=3)
    # Rounding differs with the batch's size and the sign of a gradient near zero with it, so a
    # few values may land on the other side; the start and nearly all steps must agree.
    for one, other in ((first.rgb[order], apart.rgb), (first.skeleton[order], apart.skeleton)):
        assert ((one - other).abs() > 1e-5).float().mean() < 0.01


@pytest.mark.parametrize("name", NAMES)
def test_no_budget_means_no_change(name, model, batch, attack_of):
    for norm in ("Linf", "L2"):
        threat = ThreatModel(Budget(norm, 0.0), Budget(norm, 0.0))
        assert same(attack_of(name, threat)(model, batch, threat, seed=0), batch)


@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd_ce", "square", "hard_label"])
def test_a_threat_without_any_budget_changes_nothing(name, model, batch, attack_of):
    nothing = ThreatModel()
    assert same(attack_of(name, nothing)(model, batch, nothing, seed=0), batch)


@pytest.mark.parametrize("name", ["pgd", "apgd_ce", "square", "hard_label"])
def test_another_seed_starts_elsewhere(name, model, batch, attack_of):
    threat = THREATS["Linf"]
    attack = attack_of(name, threat)
    assert not same(attack(model, batch, threat, seed=0), attack(model, batch, threat, seed=1))


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("transfer", "universal")])
def test_every_attack_fools_most_clips_of_an_undefended_model(name, model, batch, attack_of, wrong):
    threat = THREATS["Linf"].scaled(3, 3)
    adversarial = attack_of(name, threat)(model, batch, threat, seed=0)
    assert wrong(model, adversarial).float().mean() >= 0.5


@pytest.mark.parametrize("name", NAMES)
def test_every_attack_charges_the_counter(name, model, batch, attack_of):
    counter = Counter(model)
    attack_of(name, THREATS["Linf"])(counter, batch, THREATS["Linf"], seed=0)
    spent = [counter.passes(clip) for clip in batch.clip_id]
    free = {"universal"}
    assert (min(spent) == 0) if name in free else (min(spent) > 0)
    counter.reset()
    assert counter.passes("clip0") == 0
