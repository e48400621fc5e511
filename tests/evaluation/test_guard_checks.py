"""Where each check of gradient masking begins to warn and to fail, on verdicts by hand."""

import math

import pytest
import torch
from torch import nn

from components.attacks import ATTACKS, Budget, ThreatModel
from components.batch import Batch
from components.evaluation.checks import check_model
from components.evaluation.curves import curves, standing_grid
from components.evaluation.evaluate import evaluate_model
from components.evaluation.metrics import wilson
from components.evaluation.suite import Entry

THREAT = ThreatModel(rgb=Budget("Linf", 0.1), skeleton=Budget("Linf", 0.1))
CELLS = ("rgb", "skeleton", "both")


class Smooth(nn.Module):
    """Right by a margin of 1 unless the first pixel or the second joint is moved by half its eps.

    Gradients are honest: the logits are smooth in both inputs.
    """

    def forward(self, rgb, skeleton, present):
        label = skeleton[:, 0, 0, 0, 0]
        moved = (rgb[:, 0, 0, 0, 0] - 0.5) + skeleton[:, 0, 0, 1, 0]
        right = 1.0 - 60.0 * moved.clamp(min=-1.0) + 0.01 * rgb.mean((1, 2, 3, 4))
        sign = 2.0 * label - 1.0
        return torch.stack([-0.5 * sign * right, 0.5 * sign * right], 1)


def clips(n: int) -> Batch:
    label = torch.arange(n) % 2
    skeleton = torch.zeros(n, 3, 4, 25, 2)
    skeleton[:, 0, 0, 0, 0] = label.float()
    ids = tuple(f"c{i}" for i in range(n))
    present = torch.ones(n, 4, 2, dtype=torch.bool)
    return Batch(torch.full((n, 3, 2, 4, 4), 0.5), skeleton, present, label, ids)


def plant(monkeypatch, fooled) -> None:
    """An attack that fools as many clips as `fooled(parameters, threat)` says, the first ones."""

    def attack(model, batch, threat, *, seed, **parameters):
        n = fooled(parameters, threat)
        hit = torch.tensor([int(name[1:]) < n for name in batch.clip_id])
        rgb, skeleton = batch.rgb.clone(), batch.skeleton.clone()
        if threat.rgb is not None:
            rgb[hit, 0, 0, 0, 0] += 0.5 * min(threat.rgb.eps, 0.5)
        elif threat.skeleton is not None:
            skeleton[hit, 0, 0, 1, 0] += 0.5 * threat.skeleton.eps
        return batch._replace(rgb=rgb, skeleton=skeleton)

    for name in ("pgd", "fgsm", "square"):
        monkeypatch.setitem(ATTACKS, name, attack)


def status(check: str, fooled, monkeypatch, n: int = 100) -> tuple[str, dict]:
    plant(monkeypatch, fooled)
    flags = {f["check"]: f for f in check_model(Smooth(), clips(n), THREAT, seed=0)}
    return flags[check]["status"], flags[check]["figures"]


@pytest.mark.parametrize(
    ("more", "expected"), [(0, "pass"), (10, "pass"), (11, "warn"), (20, "warn"), (21, "fail")]
)
def test_more_steps_and_a_restart_may_break_a_tenth(more, expected, monkeypatch) -> None:
    found, figures = status(
        "more_steps", lambda p, t: 30 + more * (p.get("name") == "again"), monkeypatch
    )
    assert found == expected
    assert figures["pgd20"] == pytest.approx(0.7)
    assert figures["pgd40_and_restart"] == pytest.approx(0.7 - more / 100)
    found, _ = status("more_steps", lambda p, t: 30 + more * (p["steps"] == 40), monkeypatch)
    assert found == expected


@pytest.mark.parametrize(
    ("fooled", "expected"),
    [
        ((10, 20, 30, 40), "pass"),
        ((10, 20, 13, 40), "pass"),  # seven points more stand at a larger budget
        ((10, 20, 12, 40), "warn"),
        ((10, 30, 14, 40), "fail"),
        ((20, 20, 20, 20), "fail"),  # no budget makes a difference
        ((95, 95, 95, 95), "pass"),  # nothing is left that could fall
    ],
)
def test_accuracy_must_fall_with_the_budget(fooled, expected, monkeypatch) -> None:
    at = dict(zip((0.05, 0.1, 0.2, 0.4), fooled, strict=True))
    found, figures = status(
        "grows_with_eps", lambda p, t: at.get(round(t.rgb.eps, 3), 100), monkeypatch
    )
    assert found == expected
    assert [figures[f"eps_x{f}"] for f in ("0.5", "1", "2", "4")] == pytest.approx(
        [1 - k / 100 for k in fooled]
    )


@pytest.mark.parametrize(
    ("left", "expected"), [(0, "pass"), (1, "warn"), (10, "warn"), (11, "fail")]
)
def test_without_bounds_nothing_may_be_left(left, expected, monkeypatch) -> None:
    def fooled(parameters, threat):
        wide = threat.rgb.eps == 1.0 and threat.skeleton.eps == 1.0
        return 100 - left if wide else 0

    found, figures = status("unbounded", fooled, monkeypatch)
    assert (found, figures["robust_acc"]) == (expected, pytest.approx(left / 100))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("check", "attack"), [("iterative", "fgsm"), ("black_box", "square")], ids=str
)
@pytest.mark.parametrize(("more", "expected"), [(2, "pass"), (3, "warn"), (5, "warn"), (6, "fail")])
def test_weaker_attacks_may_break_little_that_stronger_ones_do_not(
    check, attack, cell, more, expected, monkeypatch
) -> None:
    """In the worst cell, as a share of all clips."""

    def fooled(parameters, threat):
        names = [m for m in ("rgb", "skeleton") if getattr(threat, m) is not None]
        here = "both" if len(names) == 2 else names[0]
        return more * (parameters.get("weak", False) and here == cell)

    plant(monkeypatch, fooled)
    weak = {"weak": True}
    suite = [
        Entry("fgsm", "fgsm", weak if attack == "fgsm" else {}, individual=True),
        Entry("pgd20", "pgd", {}, individual=True),
        Entry("square", "square", weak if attack == "square" else {}),
    ]
    flags = evaluate_model(Smooth(), clips(100), THREAT, suite, checks=False).summary["flags"]
    found = {f["check"]: f for f in flags}
    assert set(found) == {"iterative", "black_box", "stream_collapsed"}
    assert found[check]["status"] == expected
    assert found[check]["figures"][cell] == pytest.approx(more / 100)
    other = "black_box" if check == "iterative" else "iterative"
    assert found[other]["status"] == "pass"


def test_gradients_of_an_honest_model_raise_nothing(monkeypatch) -> None:
    plant(monkeypatch, lambda p, t: 100)
    flags = {f["check"]: f for f in check_model(Smooth(), clips(16), THREAT, seed=0)}
    for check in ("random_output", "softmax_output", "zero_gradients", "slopes"):
        assert flags[check]["status"] == "pass", flags[check]
    assert flags["zero_gradients"]["figures"] == {"rgb": 0.0, "skeleton": 0.0}
    assert min(flags["slopes"]["figures"].values()) > 0.99


def test_the_json_of_curves(monkeypatch) -> None:
    plant(monkeypatch, lambda p, t: 4)
    threat = ThreatModel(rgb=Budget("Linf", 0.2), skeleton=Budget("L2", 0.4))
    factors = (0.0, 0.5, 1.0)
    grid = standing_grid(Smooth(), clips(10), threat, factors, seed=0)
    assert grid == [[10, 6, 6], [6, 6, 6], [6, 6, 6]]
    found = curves([grid, grid], 20, threat, factors, {"model": "m"})

    def share(k: int) -> dict:
        low, high = wilson(k, 20)
        return {"value": k / 20, "low": low, "high": high, "n": 20}

    assert found["model"] == "m" and found["clips"] == 20 and found["factors"] == [0.0, 0.5, 1.0]
    assert found["eps"] == {"rgb": [0.0, 0.1, 0.2], "skeleton": [0.0, 0.2, 0.4]}
    assert found["norm"] == {"rgb": "Linf", "skeleton": "L2"}
    assert found["rgb"] == found["skeleton"] == [share(20), share(12), share(12)]
    assert found["grid"] == [[1.0, 0.6, 0.6], [0.6, 0.6, 0.6], [0.6, 0.6, 0.6]]
    for name, other in (("rgb", "skeleton"), ("skeleton", "rgb")):
        alone = ThreatModel(**{name: getattr(threat, name)})
        grid = standing_grid(Smooth(), clips(10), alone, factors, seed=0)
        found = curves([grid], 10, alone, factors, {})
        assert len(found[name]) == 3 and found[other] == [] and set(found["eps"]) == {name}


@pytest.mark.parametrize("factors", [(0.0,), (0.5, 1.0), (0.0, 1.0, 1.0), (0.0, 1.0, 0.5)], ids=str)
def test_curves_start_at_nothing_and_rise(factors) -> None:
    with pytest.raises(ValueError, match="rise"):
        standing_grid(Smooth(), clips(2), THREAT, factors, seed=0)


def test_wilson_refuses_what_cannot_be_counted() -> None:
    for successes, n in ((-1, 5), (6, 5), (1, 0)):
        with pytest.raises(ValueError, match=r"0\.\.n"):
            wilson(successes, n)
    assert wilson(0, 0) == (0.0, 1.0)
    low, high = wilson(5, 5)
    assert high == 1.0 and math.isclose(low, 5 / (5 + 1.959963984540054**2))
