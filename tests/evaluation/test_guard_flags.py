"""Where the flags on a model's output and gradients begin to rise, on models by hand."""

import math

import pytest
import torch
from torch import nn

from components.attacks import ATTACKS, Budget, ThreatModel
from components.evaluation.checks import check_model, flag
from components.evaluation.metrics import wilson
from tests._support.linear import THREAT, clips


class Answer(nn.Module):
    """Logits by a function of (number of the pass, rgb, skeleton)."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.answer, self.passes = answer, 0

    def forward(self, rgb, skeleton, present):
        self.passes += 1
        return self.answer(self.passes, rgb, skeleton)


def flags_of(answer, threat=None, n: int = 16, given=None) -> dict[str, dict]:
    some = clips([0.0] * n, [0.0] * n) if given is None else given
    found = check_model(Answer(answer), some, threat or ThreatModel(), seed=0)
    return {f["check"]: f for f in found}


@pytest.mark.parametrize(
    ("spread", "status"),
    [(0.0, "pass"), (4e-6, "pass"), (3e-5, "warn"), (8e-4, "warn"), (2e-3, "fail")],
)
@pytest.mark.parametrize("which", [2, 3])
def test_outputs_may_differ_by_rounding_alone(spread: float, status: str, which: int) -> None:
    """As a share of the outputs' own spread, in whichever of two repetitions it shows."""
    logits, passes = 0.04 * torch.linspace(-1, 1, 48).reshape(16, 3), []

    def answer(number, rgb, skeleton):
        passes.append(number)
        moved = torch.zeros(16, 3)
        moved[3, 1] = spread * float(logits.std())
        return logits - moved if number == which else logits

    found = flags_of(answer)
    assert passes == [1, 2, 3, 4]  # the last one looks for probabilities
    assert set(found) == {"random_output", "softmax_output"}
    one = found["random_output"]
    assert one["status"] == status and (one["message"] == "") is (status == "pass")
    assert one["figures"]["spread"] == pytest.approx(spread, rel=0.1, abs=1e-7)
    assert one["page"] == "docs/flags.md#random-output"
    if not spread:  # outputs that are all alike have no spread to divide by
        assert flags_of(lambda *_: torch.ones(16, 3))["random_output"]["figures"]["spread"] == 0


def test_probabilities_are_no_logits() -> None:
    sums = torch.full((16, 4), 0.25)
    moved = torch.zeros(16, 4)
    moved[5, 0] = 1.0
    cases = [
        (sums, "fail"), (sums + 5e-4 * moved, "fail"), (sums - 5e-4 * moved, "fail"),
        (sums + 2e-3 * moved, "pass"), (sums - 2e-3 * moved, "pass"), (sums + 1.0, "pass"),
        (sums + 0.3 * moved - 0.3 * moved.roll(1, 1), "pass"),  # one below 0, all sums 1
        (moved.roll(0, 0) + torch.eye(4).repeat(4, 1) * (1 - moved.sum(1))[:, None], "fail"),
    ]  # fmt: skip
    for logits, status in cases:
        found = flags_of(lambda number, rgb, skeleton, logits=logits: logits)["softmax_output"]
        assert found["status"] == status and (found["message"] == "") is (status == "pass")
        assert found["figures"] == pytest.approx(
            {"smallest": float(logits.min()), "mean_sum": float(logits.sum(1).mean())}, abs=1e-6
        )


def still(monkeypatch) -> list[tuple]:
    """PGD that changes nothing, and what it was asked for."""
    asked = []

    def pgd(model, batch, threat, *, seed, **parameters):
        asked.append((parameters, threat, seed))
        return batch

    monkeypatch.setitem(ATTACKS, "pgd", pgd)
    return asked


@pytest.mark.parametrize(
    ("n", "hidden", "status"),
    [
        (16, 0, "pass"), (16, 1, "pass"), (16, 2, "warn"), (16, 3, "fail"), (100, 4, "pass"),
        (100, 5, "warn"), (100, 9, "warn"), (100, 10, "fail"), (15, 0, "too-few"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("modality", ["rgb", "skeleton"])
def test_clips_that_hide_their_gradient_are_counted(n, hidden, status, modality, monkeypatch):
    still(monkeypatch)
    given = clips([0.1] * n, [0.1] * n)
    given.skeleton[:hidden, 1, 0, 2, 0] = 1.0  # a height: these clips are read behind a detach
    seen = []

    def answer(number, rgb, skeleton):
        seen.append((rgb.detach(), skeleton.detach()))
        parts = {"rgb": rgb[:, 0, 0, 0, 0] - 0.4, "skeleton": skeleton[:, 0, 0, 0, 0] + 0.2}
        hides = skeleton[:, 1, 0, 2, 0].detach() > 0.5
        one = parts[modality]
        parts[modality] = torch.where(hides, one.detach(), one)
        lead = parts["rgb"] + parts["skeleton"]
        return torch.stack([lead, -lead], 1)

    found = flags_of(answer, THREAT, given=given)["zero_gradients"]
    assert found["status"] == status
    other = "skeleton" if modality == "rgb" else "rgb"
    wanted = {"clips": n}
    for name, k in ((modality, hidden), (other, 0)):
        low, high = wilson(k, n)
        wanted |= {name: k / n, f"{name}_low": low, f"{name}_high": high}
    assert found["figures"] == pytest.approx(wanted)
    if n == 16:  # whether an input is read shows in a negative and in a person mirrored
        mirrored = given.skeleton * torch.tensor([-1.0, 1.0, 1.0])[:, None, None, None]
        assert any(torch.equal(rgb, 1 - given.rgb) for rgb, _ in seen)
        assert any(torch.equal(skeleton, mirrored) for _, skeleton in seen)


def test_what_is_not_read_hides_nothing_and_no_clip_no_figure(monkeypatch) -> None:
    still(monkeypatch)

    def answer(number, rgb, skeleton):
        lead = rgb[:, 0, 0, 0, 0]
        return torch.stack([lead, -lead], 1)

    slopes = flags_of(answer, THREAT)["slopes"]
    assert slopes["status"] == "pass"
    assert [slopes["figures"][k] for k in ("skeleton", "skeleton_low", "skeleton_high")] == [
        1.0
    ] * 3
    wrong = clips([0.0] * 16, [0.0] * 16, [1] * 16)
    found = flags_of(answer, THREAT, given=wrong)
    for check in ("zero_gradients", "slopes", "more_steps", "grows_with_eps", "unbounded"):
        assert (found[check]["status"], found[check]["figures"]) == ("too-few", {"clips": 0})
    l2 = ThreatModel(rgb=Budget("L2", 0.02), skeleton=Budget("L2", 0.04))
    assert flags_of(answer, l2, given=clips([0.1], [0.1]))["slopes"]["figures"]["clips"] == 1


def through(slope: float, x: torch.Tensor, true: float = 1.0) -> torch.Tensor:
    """true * x, with a gradient of `slope`."""
    return slope * x + (true - slope) * x.detach()


@pytest.mark.parametrize(
    ("slope", "explained", "status"),
    [(1.0, 1.0, "pass"), (0.75, 0.9375, "pass"), (0.6, 0.84, "warn"), (2.0, 0.75, "warn"),
     (0.2, 0.36, "fail"), (-1.0, 0.0, "fail")],
)  # fmt: skip
@pytest.mark.parametrize("modality", ["rgb", "skeleton"])
def test_what_gradients_explain_of_small_steps(slope, explained, status, modality, monkeypatch):
    """1 less the squared error as a share of the change, seen or foretold, whichever is larger."""
    still(monkeypatch)

    def answer(number, rgb, skeleton):
        video = through(slope if modality == "rgb" else 1.0, rgb[:, 0, 0, 0, 0])
        joint = through(slope if modality == "skeleton" else 1.0, skeleton[:, 0, 0, 0, 0])
        lead = 10 * (video + joint)
        return torch.stack([lead, -lead], 1)

    found = flags_of(answer, THREAT, n=20)["slopes"]
    assert found["status"] == status
    other = "skeleton" if modality == "rgb" else "rgb"
    for name, value in ((modality, explained), (other, 1.0)):
        for part in (name, f"{name}_low", f"{name}_high"):
            assert found["figures"][part] == pytest.approx(value, abs=0.02), part
    assert found["figures"]["clips"] == 20 and (found["message"] == "") is (status == "pass")


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("modality", ["rgb", "skeleton"])
def test_small_steps_are_a_fiftieth_of_the_budget_along_the_gradient(norm, modality, monkeypatch):
    """Shown by a curve whose bend is half of its slope at just that step: 1 - (1/3)^2."""
    still(monkeypatch)
    given = clips([0.0] * 16, [0.0] * 16)
    numel = getattr(given, modality)[0].numel()
    budget = Budget(norm, 0.1 if norm == "Linf" else 0.1 * numel**0.5)
    threat = ThreatModel(**{modality: budget})

    def answer(number, rgb, skeleton):
        x = rgb[:, 0, 0, 0, 0] - 0.5 if modality == "rgb" else skeleton[:, 0, 0, 0, 0]
        lead = 1000 * (x + 250 * x * x) + 1e-3
        return torch.stack([lead, -lead], 1)

    figures = flags_of(answer, threat, given=given)["slopes"]["figures"]
    assert figures[modality] == pytest.approx(1 - 1 / 9, abs=0.005)


def test_the_interval_of_slopes_and_the_draws_behind_them(monkeypatch, pinned) -> None:
    still(monkeypatch)
    given = clips([0.0] * 16, [0.0] * 16)
    given.skeleton[:8, 1, 0, 2, 0] = 1.0
    given.present[:, :, 1] = False

    def half(number, rgb, skeleton):
        """Eight clips of sixteen without any gradient."""
        hides = skeleton[:, 1, 0, 2, 0].detach() > 0.5
        x = torch.where(hides, rgb[:, 0, 0, 0, 0].detach(), rgb[:, 0, 0, 0, 0])
        return torch.stack([10 * x, -10 * x], 1)

    figures = flags_of(half, ThreatModel(rgb=THREAT.rgb), given=given)["slopes"]["figures"]
    # Where there is no gradient every draw is a step, else those along it: half of them.
    assert figures["rgb"] == pytest.approx(1 / 3, abs=0.1)
    assert 0.1 < figures["rgb"] - figures["rgb_low"] < 0.3
    assert 0.1 < figures["rgb_high"] - figures["rgb"] < 0.3
    pinned("slopes of a half", figures)
    g = torch.Generator().manual_seed(0)
    true, slope = (torch.randn(2, 24, generator=g) for _ in range(2))

    def many(number, rgb, skeleton):
        """Gradients that are wrong by another factor at every pixel and joint."""
        inputs = (rgb.flatten(1)[:, :24] - 0.5, skeleton[:, 0, 0, :24].sum(-1))
        lead = 10 + sum(through(slope[i], x, true[i]).sum(1) for i, x in enumerate(inputs))
        return torch.stack([lead, -lead], 1)

    pinned("slopes of many", flags_of(many, THREAT, given=given)["slopes"]["figures"])


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_checks_attack_with_these_parameters_and_budgets(norm: str, monkeypatch) -> None:
    asked = still(monkeypatch)
    given = clips([0.1] * 16, [0.1] * 16)
    rgb, skeleton = Budget(norm, 0.02, frames=1), Budget(norm, 0.04, frames=2)

    def answer(number, rgb, skeleton):
        lead = 1 + rgb.mean((1, 2, 3, 4)) + skeleton.mean((1, 2, 3, 4))
        return torch.stack([lead, -lead], 1)

    flags_of(answer, ThreatModel(rgb=rgb, skeleton=skeleton), given=given)
    told = [(p, t.rgb.eps, t.skeleton.eps, t.rgb.frames, t.skeleton.frames, s) for p, t, s in asked]
    pgd = {"early_stop": True}
    whole = [1.0 if norm == "Linf" else getattr(given, m)[0].numel() ** 0.5 for m in
             ("rgb", "skeleton")]  # fmt: skip
    assert told == [
        *(({**pgd, "steps": steps, "name": name}, 0.02, 0.04, 1, 2, 0)
          for steps, name in ((20, "few"), (40, "more"), (20, "again"))),
        *(({**pgd, "steps": 10, "name": "pgd10"}, 0.02 * f, 0.04 * f, 1, 2, 0)
          for f in (0.5, 1, 2, 4)),
        ({**pgd, "steps": 30, "name": "unbounded", "loss": "margin", "rel_alpha": 0.1}, *whole,
         None, None, 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("eps", "status"), [((0.0, 0.0), "pass"), ((0.0, 0.1), "fail"), ((0.1, 0.0), "fail")]
)
def test_budgets_of_nothing_need_not_lower_the_accuracy(eps, status: str, monkeypatch) -> None:
    still(monkeypatch)
    threat = ThreatModel(rgb=Budget("Linf", eps[0]), skeleton=Budget("Linf", eps[1]))

    def answer(number, rgb, skeleton):
        lead = 1 + rgb.mean((1, 2, 3, 4)) + skeleton.mean((1, 2, 3, 4))
        return torch.stack([lead, -lead], 1)

    assert flags_of(answer, threat)["grows_with_eps"]["status"] == status


def test_a_flag_holds_figures_that_json_can_hold() -> None:
    assert flag("a_check", "warn", "why", one=math.nan, two=-math.inf, three=0.5) == {
        "check": "a_check", "status": "warn", "message": "why",
        "figures": {"one": None, "two": None, "three": 0.5}, "page": "docs/flags.md#a-check",
    }  # fmt: skip
