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
from components.evaluation.subset import draw
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

    for name in ("pgd", "margin_pgd", "fgsm", "square"):
        monkeypatch.setitem(ATTACKS, name, attack)


def status(check: str, fooled, monkeypatch, n: int = 100) -> tuple[str, dict]:
    plant(monkeypatch, fooled)
    flags = {f["check"]: f for f in check_model(Smooth(), clips(n), THREAT, seed=0)}
    return flags[check]["status"], flags[check]["figures"]


# How many of n clips a check lets pass, warns of, and fails at: the low end of the 95 % interval
# is above 2 % and above 10 %. One clip of sixteen decides nothing.
LIMITS = [
    *((16, k, "pass") for k in (0, 1)),
    *((16, k, "warn") for k in (2, 3)),
    *((16, k, "fail") for k in (4, 12)),
    *((100, k, "pass") for k in (0, 4)),
    *((100, k, "warn") for k in (5, 15)),
    *((100, k, "fail") for k in (16, 40)),
]


@pytest.mark.parametrize(("n", "more", "expected"), LIMITS)
def test_more_steps_and_a_restart_may_break_few(n, more, expected, monkeypatch) -> None:
    found, figures = status(
        "more_steps", lambda p, t: 2 + more * (p.get("name") == "again"), monkeypatch, n
    )
    assert found == expected
    low, high = wilson(more, n)
    assert figures == pytest.approx(
        {
            "broken_besides": more / n,
            "broken_besides_low": low,
            "broken_besides_high": high,
            "pgd20": 1 - 2 / n,
            "pgd40_and_restart": 1 - (2 + more) / n,
            "clips": n,
        }
    )
    found, _ = status("more_steps", lambda p, t: 2 + more * (p["steps"] == 40), monkeypatch, n)
    assert found == expected


@pytest.mark.parametrize(
    ("fooled", "expected"),
    [
        ((2, 4, 6, 8), "pass"),
        ((2, 4, 3, 8), "pass"),  # one clip more stands at a larger budget
        ((2, 4, 2, 8), "warn"),
        ((2, 5, 2, 8), "warn"),
        ((2, 6, 2, 8), "fail"),
        ((3, 3, 3, 3), "fail"),  # no budget makes a difference
        ((12, 12, 12, 12), "fail"),
        ((13, 13, 13, 13), "pass"),  # too little is left that could fall
        ((12, 12, 12, 13), "pass"),
        ((13, 13, 13, 11), "warn"),
        ((13, 12, 13, 13), "pass"),
    ],
)
def test_accuracy_must_fall_with_the_budget(fooled, expected, monkeypatch) -> None:
    at = dict(zip((0.05, 0.1, 0.2, 0.4), fooled, strict=True))
    found, figures = status(
        "grows_with_eps", lambda p, t: at.get(round(t.rgb.eps, 3), 16), monkeypatch, 16
    )
    assert found == expected
    assert [figures[f"eps_x{f}"] for f in ("0.5", "1", "2", "4")] == pytest.approx(
        [1 - k / 16 for k in fooled]
    )
    rise = max(0, *(a - b for a, b in zip(fooled, fooled[1:], strict=False)))
    assert (figures["rise"], figures["rise_low"]) == (rise / 16, wilson(rise, 16)[0])


@pytest.mark.parametrize(("n", "left", "expected"), LIMITS)
def test_without_bounds_next_to_nothing_may_be_left(n, left, expected, monkeypatch) -> None:
    def fooled(parameters, threat):
        wide = threat.rgb.eps == 1.0 and threat.skeleton.eps == 1.0
        return n - left if wide else 0

    found, figures = status("unbounded", fooled, monkeypatch, n)
    assert (found, figures["robust_acc"]) == (expected, pytest.approx(left / n))
    assert (figures["robust_acc_low"], figures["robust_acc_high"]) == wilson(left, n)


COUNTING = {"zero_gradients", "slopes", "more_steps", "grows_with_eps", "unbounded"}


@pytest.mark.parametrize("n", [1, 15, 16])
def test_too_few_rightly_classified_clips_pass_no_check(n, monkeypatch) -> None:
    plant(monkeypatch, lambda p, t: 100)
    given = clips(20)
    spoilt = given._replace(label=torch.where(torch.arange(20) < n, given.label, 1 - given.label))
    flags = {f["check"]: f for f in check_model(Smooth(), spoilt, THREAT, seed=0)}
    expected = "pass" if n == 16 else "too-few"
    assert {flags[check]["status"] for check in COUNTING} == {expected}
    assert {flags[check]["figures"]["clips"] for check in COUNTING} == {n}
    if n < 16:
        assert all(f"{n} rightly classified clips" in flags[c]["message"] for c in COUNTING)
    # These do not count clips: one is enough.
    assert flags["random_output"]["status"] == flags["softmax_output"]["status"] == "pass"


def test_what_few_clips_prove_is_said(monkeypatch) -> None:
    """All five of five standing without bounds are a failure, not too few."""
    plant(monkeypatch, lambda p, t: 0)
    flags = {f["check"]: f for f in check_model(Smooth(), clips(5), THREAT, seed=0)}
    assert flags["unbounded"]["status"] == flags["grows_with_eps"]["status"] == "fail"
    assert flags["more_steps"]["status"] == "too-few"


def test_with_no_clip_that_is_right_every_check_says_so(monkeypatch) -> None:
    given = clips(20)
    wrong = given._replace(label=1 - given.label)
    found = evaluate_model(Smooth(), wrong, THREAT, "thin").summary
    flags = {f["check"]: f["status"] for f in found["flags"]}
    assert {flags[check] for check in COUNTING | {"iterative"}} == {"too-few"}
    assert found["flagged"] == "warn"  # neither stream is worth anything here, either


def test_no_budget_at_all_leaves_the_checks_that_need_none() -> None:
    found = evaluate_model(Smooth(), clips(16), ThreatModel(), "thin").summary
    assert {f["check"] for f in found["flags"]} >= {"random_output", "softmax_output"}
    assert not COUNTING & {f["check"] for f in found["flags"]}


def test_checks_draw_rightly_classified_clips_from_all_batches(monkeypatch) -> None:
    """Of 80 clips every fourth is right: the subset is the same in any order of the batches."""
    seen = []

    def spy(model, batch, threat, *, seed):
        seen.append(batch)
        return []

    monkeypatch.setattr("components.evaluation.evaluate.check_model", spy)
    given = clips(80)
    right = torch.arange(80) % 4 == 3
    mixed = given._replace(label=torch.where(right, given.label, 1 - given.label))
    parts = [mixed.select(torch.arange(i, i + 10)) for i in range(0, 80, 10)]
    for batches in (parts, parts[::-1], [mixed]):
        evaluate_model(Smooth(), batches, THREAT, ())
    names = {batch.clip_id for batch in seen}
    assert len(names) == 1
    assert {int(name[1:]) % 4 for name in names.pop()} == {3}

    read = []

    def reading():
        for part in parts:
            read.append(part)
            yield part

    drawn = draw(Smooth(), reading())
    assert drawn.size == 16 and {int(name[1:]) % 4 for name in drawn.clip_id} == {3}
    assert len(read) == 7  # 2 or 3 right clips in each: no more is read than is needed
    with pytest.raises(ValueError, match="no clips"):
        draw(Smooth(), [])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("check", "attack"), [("iterative", "fgsm"), ("black_box", "square")], ids=str
)
@pytest.mark.parametrize(("more", "expected"), [(3, "pass"), (4, "warn"), (6, "warn"), (7, "fail")])
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
    found = flags["zero_gradients"]["figures"]
    assert (found["rgb"], found["skeleton"], found["rgb_high"]) == (0, 0, wilson(0, 16)[1])
    slopes = flags["slopes"]["figures"]
    assert slopes["clips"] == 16
    for name in ("rgb", "skeleton"):
        assert 0.99 < slopes[f"{name}_low"] <= slopes[name] <= slopes[f"{name}_high"] <= 1


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
