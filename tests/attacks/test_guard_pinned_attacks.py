"""What every attack finds on a small net, in figures: whatever changes them changes every table."""

from functools import partial

import pytest
import torch

from components.attacks import ATTACKS, Budget, Counter, ThreatModel, fit_universal, universal

SHORT = {
    "pgd": {"steps": 4, "n_restarts": 2}, "mifgsm": {"steps": 4},
    "cw": {"steps": 4}, "apgd_ce": {"steps": 20}, "apgd_dlr": {"steps": 20},
    "apgd_t": {"steps": 10, "n_targets": 3}, "square": {"queries": 40},
    "hard_label": {"queries": 25},
    "smart": {"steps": 6}, "sparse_frames": {"steps": 4}, "flicker": {"steps": 4},
    "eot": {"steps": 3}, "attention_touched": {"steps": 8}, "attention_other": {"steps": 8},
    "heads": {"steps": 8}, "weakest_head": {"steps": 8}, "cross": {"steps": 8},
}  # fmt: skip
THREATS = {
    "linf": ThreatModel(Budget("Linf", 0.01), Budget("Linf", 0.02)),
    "l2": ThreatModel(Budget("L2", 0.3), Budget("L2", 0.4)),
    "held": ThreatModel(
        Budget("Linf", 0.02, frames=2), Budget("Linf", 0.03), bone_length=0.1, acceleration=0.02
    ),
}


def figures(clean, found, counter) -> dict[str, float]:
    """Size, direction and cost of a perturbation."""
    draw = torch.Generator().manual_seed(7)
    told = {}
    for name in ("rgb", "skeleton"):
        change = (getattr(found, name) - getattr(clean, name)).double()
        told[f"{name} size"] = float(change.abs().mean()) * 100
        told[f"{name} square"] = float(change.square().mean().sqrt()) * 100
        plain = torch.randn(change.shape[1:], generator=draw).double()
        told[f"{name} along"] = float((change * plain).mean((1, 2, 3, 4)).abs().mean()) * 1000
    told["forward"] = counter.forwards.total() / 10
    told["backward"] = counter.backwards.total() / 10
    return told


@pytest.mark.parametrize("kind", THREATS)
@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_figures_of_every_attack(name, kind, make_model, make_batch, pinned) -> None:
    model = make_model().eval()
    clips = make_batch(model, size=6)
    counter = Counter(model)
    found = ATTACKS[name](counter, clips, THREATS[kind], seed=3, **SHORT.get(name, {}))
    pinned(f"{name} {kind}", figures(clips, found, counter), rel=0.02)


def test_figures_of_a_universal_perturbation(make_model, make_batch, pinned) -> None:
    model = make_model().eval()
    clips = make_batch(model, size=6)
    counter = Counter(model)
    fitted = fit_universal(counter, [clips], THREATS["linf"], epochs=3)
    found = partial(universal, delta=fitted)(counter, clips, THREATS["linf"], seed=3)
    pinned("universal", figures(clips, found, counter), rel=0.02)
