"""Gradient attacks ask about the points of their algorithms, written out here a second time."""

import math

import pytest
import torch
from torch import Tensor

from components.attacks import ADAPTIVE, Budget, ThreatModel, fit_universal
from components.attacks.flicker import flicker
from components.attacks.margin_pgd import margin_pgd
from components.attacks.mifgsm import mifgsm
from components.attacks.smart import smart
from components.batch import BONES, Batch, ModelOutput

EPS = {"rgb": 0.05, "skeleton": 0.08}
NAMES = tuple(EPS)
LINF = ThreatModel(*(Budget("Linf", e, -99, 99) for e in EPS.values()))
L2 = ThreatModel(*(Budget("L2", 20 * e, -99, 99) for e in EPS.values()))
THREATS = {"Linf": LINF, "L2": L2}


@pytest.fixture(scope="module")
def clips() -> Batch:
    draw = torch.Generator().manual_seed(0)
    present = torch.ones(3, 6, 2, dtype=torch.bool)
    present[0, :, 1] = False
    skeleton = 0.3 * torch.randn(3, 3, 6, 25, 2, generator=draw)
    return Batch(
        torch.rand(3, 3, 4, 5, 5, generator=draw),
        skeleton * present[:, None, :, None, :],
        present,
        torch.zeros(3, dtype=torch.int64),
        tuple("abc"),
    )


class Hills:
    """Four classes over a waved landscape; class 0 leads by far. Keeps what it is asked about."""

    def __init__(self, clips: Batch, lead: float = 50.0) -> None:
        draw = torch.Generator().manual_seed(5)
        self.ways = [
            {m: torch.randn(getattr(clips, m).shape[1:], generator=draw) for m in NAMES}
            for _ in range(5)
        ]
        self.lead = torch.tensor([lead, 0.0, 0.0, 0.0])
        self.asked: list[dict[str, Tensor]] = []

    def __call__(self, rgb: Tensor, skeleton: Tensor, present: Tensor) -> Tensor:
        self.asked.append({"rgb": rgb.detach().clone(), "skeleton": skeleton.detach().clone()})
        return self.logits({"rgb": rgb, "skeleton": skeleton})

    def height(self, x: dict[str, Tensor], k: int) -> Tensor:
        w = self.ways[k]
        return sum((w[m] * (w[m] + x[m] / EPS[m]).sin()).sum((1, 2, 3, 4)) / 20 for m in NAMES)

    def logits(self, x: dict[str, Tensor]) -> Tensor:
        return torch.stack([self.height(x, k) for k in range(4)], 1) + self.lead


def slope(value, x: dict[str, Tensor]) -> dict[str, Tensor]:
    leaves = {m: t.detach().clone().requires_grad_(True) for m, t in x.items()}
    grads = torch.autograd.grad(value(leaves).sum(), list(leaves.values()))
    return dict(zip(leaves, grads, strict=True))


def lengths(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1, 1)


def mask(clips: Batch, name: str) -> Tensor | float:
    return 1.0 if name == "rgb" else clips.present[:, None, :, None, :].float()


def projected(clips: Batch, x: dict[str, Tensor], norm: str) -> dict[str, Tensor]:
    out = {}
    for m, value in x.items():
        clean = getattr(clips, m)
        change = (value - clean) * mask(clips, m)
        if norm == "Linf":
            change = change.clamp(-EPS[m], EPS[m])
        else:
            change = change * (20 * EPS[m] / lengths(change).clamp(min=1e-9)).clamp(max=1)
        out[m] = clean + change
    return out


def stepped(clips: Batch, x: dict, grads: dict, share: float, norm: str) -> dict[str, Tensor]:
    out = {}
    for m, value in x.items():
        if norm == "Linf":
            out[m] = value + share * EPS[m] * grads[m].sign()
        else:
            way = grads[m] * mask(clips, m)
            out[m] = value + share * 20 * EPS[m] * way / lengths(way)
    return projected(clips, out, norm)


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Equal but for the few elements whose gradient is so small that rounding decides its sign."""
    for m, x in theirs.items():
        assert float(((ours[m] - x).abs() < 2e-3 * EPS[m]).float().mean()) > 0.985, m


def clean_of(clips: Batch) -> dict[str, Tensor]:
    return {m: getattr(clips, m).clone() for m in NAMES}


def margin_of(model: Hills, x: dict[str, Tensor]) -> Tensor:
    logits = model.logits(x)
    return logits[:, 1:].amax(1) - logits[:, 0]


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("decay", [1.0, 0.3])
def test_mifgsm_follows_algorithm_1(norm, decay, clips) -> None:
    model = Hills(clips)
    found = mifgsm(model, clips, THREATS[norm], seed=0, steps=6, decay=decay, loss="margin")
    x, momentum = clean_of(clips), dict.fromkeys(NAMES, 0.0)
    for asked in [*model.asked, found._asdict()]:
        same(asked, x)
        x = {m: asked[m] for m in NAMES}
        for m, grad in slope(lambda at: margin_of(model, at), x).items():
            size = grad.abs().mean((1, 2, 3, 4), keepdim=True)
            momentum[m] = decay * momentum[m] + grad / size
        x = stepped(clips, x, momentum, 1 / 6, norm)
    assert len(model.asked) == 6


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_flicker_climbs_over_one_offset_a_frame(norm, clips) -> None:
    model = Hills(clips)
    found = flicker(model, clips, THREATS[norm], seed=0, steps=5)
    axes = {"rgb": (3, 4), "skeleton": (3,)}
    offset = {m: torch.zeros_like(x.sum(axes[m], keepdim=True)) for m, x in clean_of(clips).items()}
    x = clean_of(clips)
    for asked in [*model.asked, found._asdict()]:
        same(asked, x)
        for m, grad in slope(lambda at: margin_of(model, at), x).items():
            pull = (grad * mask(clips, m)).sum(axes[m], keepdim=True)
            if norm == "Linf":
                offset[m] = (offset[m] + EPS[m] / 2 * pull.sign()).clamp(-EPS[m], EPS[m])
            else:
                # An offset counts once for each value that it moves.
                largest = 20 * EPS[m] / (grad[0].numel() / pull[0].numel()) ** 0.5
                offset[m] = offset[m] + largest / 2 * pull / lengths(pull)
                offset[m] = offset[m] * (largest / lengths(offset[m])).clamp(max=1)
        x = projected(clips, {m: getattr(clips, m) + offset[m] for m in NAMES}, norm)
    assert len(model.asked) == 5


def perceptual(clips: Batch, skeleton: Tensor, unit: float) -> Tensor:
    outer, inner = [o for o, _ in BONES], [i for _, i in BONES]
    before, after = (
        torch.linalg.vector_norm(s[:, :, :, outer] - s[:, :, :, inner], dim=1)
        for s in (clips.skeleton, skeleton)
    )
    change = (skeleton - clips.skeleton) / unit
    bend = change[:, :, 2:] - 2 * change[:, :, 1:-1] + change[:, :, :-2]
    stretched = ((after - before) / unit).square().mean((1, 2, 3))
    return 0.7 * stretched + 0.3 * bend.square().mean((1, 2, 3, 4))


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_smart_is_adam_on_margin_less_cost(norm, clips) -> None:
    model = Hills(clips)
    found = smart(model, clips, THREATS[norm], seed=0, steps=8)
    unit = dict(EPS)
    if norm == "L2":  # what is left of the budget for one coordinate
        unit = {m: 20 * EPS[m] / getattr(clips, m)[0].numel() ** 0.5 for m in NAMES}
    leaves = {m: x.requires_grad_(True) for m, x in clean_of(clips).items()}
    adam = torch.optim.Adam(
        [{"params": [leaves[m]], "lr": 0.1 * unit[m]} for m in NAMES], maximize=True
    )
    for asked in [*model.asked, found._asdict()]:
        same(asked, leaves)
        adam.zero_grad()
        cost = perceptual(clips, leaves["skeleton"], unit["skeleton"])
        (margin_of(model, leaves) - cost).sum().backward()
        adam.step()
        with torch.no_grad():
            for m, x in projected(clips, leaves, norm).items():
                leaves[m].copy_(x)
    assert len(model.asked) == 8


def test_of_the_iterates_that_fool_smart_keeps_the_one_of_least_cost(clips) -> None:
    fooling = {2, 3, 5, 6, 9}

    class Now(Hills):
        def __call__(self, rgb, skeleton, present):
            logits = super().__call__(rgb, skeleton, present)
            hit = len(self.asked) - 1 in fooling
            return logits - self.lead * torch.tensor([2.0 if hit else 0.0, 0.0, 0.0, 0.0])

    model = Now(clips)
    found = smart(model, clips, LINF, seed=0, steps=12, rel_lr=0.6)
    costs = torch.stack([perceptual(clips, x["skeleton"], 0.08) for x in model.asked])
    best = torch.tensor(sorted(fooling))[costs[sorted(fooling)].argmin(0)]
    for b in range(3):
        assert torch.equal(found.skeleton[b], model.asked[best[b]]["skeleton"][b])
        assert torch.equal(found.rgb[b], model.asked[best[b]]["rgb"][b])


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_universal_perturbation_climbs_what_still_stands_batch_by_batch(norm, clips) -> None:
    model = Hills(clips, lead=1.0)
    batches = [clips.select(torch.tensor([0, 1])), clips.select(torch.tensor([2]))]
    found = fit_universal(model, batches, THREATS[norm], epochs=8, rel_alpha=0.3)
    delta = {m: torch.zeros_like(getattr(clips, m)[:1]) for m in NAMES}
    for _ in range(8):
        for batch in batches:
            x = projected(batch, {m: getattr(batch, m) + delta[m] for m in NAMES}, norm)
            for m, grad in slope(lambda at: margin_of(model, at).clamp(max=0.0), x).items():
                pull, size = grad.sum(0, keepdim=True), EPS[m] * (1 if norm == "Linf" else 20)
                if norm == "Linf":
                    delta[m] = (delta[m] + 0.3 * size * pull.sign()).clamp(-size, size)
                else:
                    delta[m] = delta[m] + 0.3 * size * pull / lengths(pull).clamp(min=1e-12)
                    delta[m] = delta[m] * (size / lengths(delta[m])).clamp(max=1)
    same(found, delta)


def soft_margin(model: Hills, x: dict[str, Tensor], sharpness: Tensor) -> Tensor:
    logits = model.logits(x)
    return (sharpness[:, None] * logits[:, 1:]).logsumexp(1) / sharpness - logits[:, 0]


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_margin_pgd_sharpens_slows_down_and_then_goes_for_each_class(norm, clips) -> None:
    model = Hills(clips)
    found = margin_pgd(model, clips, THREATS[norm], seed=0, steps=5, n_targets=2, target_steps=4)
    same(model.asked[0], clean_of(clips))
    wrong = model.logits(clean_of(clips))[:, 1:]
    spread = wrong.std(1, correction=0)
    likeliest = wrong.argsort(1, descending=True) + 1

    def towards(x: dict[str, Tensor], turn: int) -> Tensor:
        logits = model.logits(x)
        return logits.gather(1, likeliest[:, turn : turn + 1])[:, 0] - logits[:, 0]

    runs = [(5, lambda x, done: soft_margin(model, x, 2 * 8**done / spread))]
    runs += [(4, lambda x, done, turn=turn: towards(x, turn)) for turn in range(2)]
    at, ends = 1, []
    for steps, value in runs:
        old = x = model.asked[at]  # a random start
        assert all((x[m] - getattr(clips, m)).abs().amax() > 0.4 * EPS[m] for m in NAMES)
        for k in range(steps):
            done = k / steps
            grads = slope(lambda at, done=done, value=value: value(at, done), x)
            length = 1 + math.cos(math.pi * done)  # 2 eps, down to 0
            z = stepped(clips, x, grads, length, norm)
            if k:
                mixed = {m: x[m] + 0.75 * (z[m] - x[m]) + 0.25 * (x[m] - old[m]) for m in NAMES}
                z = projected(clips, mixed, norm)
            at += 1
            same(model.asked[at], z)
            old, x = x, model.asked[at]
        ends.append((value(x, 1.0), x))
        at += 1
    assert at == len(model.asked)
    best = torch.stack([value for value, _ in ends]).argmax(0)
    for b in range(3):
        assert torch.equal(found.skeleton[b], ends[best[b]][1]["skeleton"][b])


def test_cross_climbs_the_other_head_for_half_of_its_steps_and_then_the_margin(clips) -> None:
    model = Hills(clips, lead=4.0)
    pairs = {"rgb": (1, 2), "skeleton": (2, 3)}  # the classes between which a head decides

    def output(x: dict[str, Tensor]) -> ModelOutput:
        logits = model.logits(x)
        aux = {m: torch.stack([model.height(x, a), model.height(x, b)], 1)
               for m, (a, b) in pairs.items()}  # fmt: skip
        return ModelOutput(logits, aux, {}, {})

    def net(rgb, skeleton, present):
        model(rgb, skeleton, present)
        return output({"rgb": rgb, "skeleton": skeleton})

    ADAPTIVE["cross"](net, clips, LINF, seed=0, steps=7)
    x = model.asked[0]
    for k in range(7):
        same(model.asked[k], x)
        x, grads = model.asked[k], {}
        for m, other in (("rgb", "skeleton"), ("skeleton", "rgb")):

            def climbed(at, other=other, k=k):
                if k >= 3:
                    return margin_of(model, at)
                told = output(at)
                return -told.logits.log_softmax(1)[:, 0] - told.aux[other].log_softmax(1)[:, 0]

            grads[m] = slope(climbed, x)[m]
        x = stepped(clips, x, grads, 2.5 / 7, "Linf")
