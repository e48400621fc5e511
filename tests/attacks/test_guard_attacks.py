"""Attacks do what they say: each test fails on one small break that once went unseen."""

import pytest
import torch

from components.attacks import ADAPTIVE, ATTACKS, Budget, ThreatModel, pgd, transfer
from components.batch import ModelOutput

THREAT = ThreatModel(Budget("Linf", 8 / 255), Budget("Linf", 0.05))


@pytest.fixture(scope="module")
def clips(make_model, make_batch):
    return make_batch(make_model(), size=4)


class Recorder:
    """A model that keeps every input it is asked about, and answers with a plane over them."""

    def __init__(self) -> None:
        self.rgb: list[torch.Tensor] = []
        self.skeleton: list[torch.Tensor] = []

    def __call__(self, rgb, skeleton, present):
        self.rgb.append(rgb.detach().clone())
        self.skeleton.append(skeleton.detach().clone())
        plane = rgb.mean((1, 2, 3, 4)) + skeleton.mean((1, 2, 3, 4))
        return torch.stack([plane, -plane], 1)


def test_every_restart_begins_at_another_point(clips) -> None:
    model = Recorder()
    clips = clips._replace(label=torch.zeros_like(clips.label))
    pgd(model, clips, THREAT, seed=0, steps=1, n_restarts=3, keep="best")
    for starts in (model.rgb, model.skeleton):
        assert len(starts) == 3
        for i in range(clips.size):
            assert not torch.equal(starts[0][i], starts[1][i])
            assert not torch.equal(starts[0][i], starts[2][i])
            assert not torch.equal(starts[1][i], starts[2][i])


def test_cross_climbs_the_other_modality_s_head(clips) -> None:
    """Each head falls when its own input sinks, and when the other's rises; the fusion is flat."""
    label = torch.zeros_like(clips.label)
    whole = clips._replace(label=label, present=torch.ones_like(clips.present))

    def model(rgb, skeleton, present):
        video, joints = rgb.mean((1, 2, 3, 4)), skeleton.mean((1, 2, 3, 4))
        aux = {}
        for name, height in (("rgb", video - 5 * joints), ("skeleton", joints - 5 * video)):
            aux[name] = torch.stack([height, -height], 1)
        flat = torch.zeros_like(video)
        return ModelOutput(torch.stack([flat + 1, flat], 1), aux, {}, {})

    inner = whole._replace(rgb=whole.rgb.clamp(0.1, 0.9))
    found = ADAPTIVE["cross"](model, inner, THREAT, seed=0, steps=40)
    # Up, which lowers the other's head; for its own head's sake each would go down. Half of the
    # steps carry a random start from the lowest corner over the middle, and no further.
    assert (found.rgb > inner.rgb).all() and (found.skeleton > inner.skeleton).all()
    assert found.rgb.max() <= 1 and (found.skeleton - inner.skeleton).max() > 0.049


def algorithm_1(start, feasible, slope, value, eps, steps, rho=0.75):
    """Points that APGD asks about, as in Croce & Hein (2020), algorithm 1, for one clip in Linf.

    Written from the paper, with one step size for each input, and what a step gained split between
    two inputs by the trapezoid rule (docs/attacks.md).
    """
    eta = {m: 2 * e for m, e in eps.items()}
    checkpoints, share = [0], 0.22
    at, period = 0, max(int(share * steps), 1)
    while at + period < steps:
        at += period
        checkpoints.append(at)
        period = max(period - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
    x = {m: t.clone() for m, t in start.items()}
    old, peak = x, x
    seen, best = [x], value(x)
    best_then, halved, gained, since = best, dict.fromkeys(x, True), dict.fromkeys(x, 0), 0
    for k in range(steps):
        z = {m: feasible(m, x[m] + eta[m] * slope(x)[m].sign()) for m in x}
        keep = 1.0 if k == 0 else 0.75
        new = {
            m: feasible(m, x[m] + keep * (z[m] - x[m]) + (1 - keep) * (x[m] - old[m])) for m in x
        }
        before, after = value(x), value(new)
        for m in x:
            gain = ((slope(x)[m] + slope(new)[m]) * (new[m] - x[m])).sum()
            gained[m] += bool((after - before if len(x) == 1 else gain) > 0)
        x, old = new, x
        seen.append(x)
        if after > best:
            best, peak = after, x
        since += 1
        if k + 1 in checkpoints and k + 1 < steps:
            back = False
            for m in x:
                halve = gained[m] <= rho * since or (not halved[m] and best <= best_then)
                eta[m] = eta[m] / 2 if halve else eta[m]
                halved[m], gained[m], back = halve, 0, back or halve
            best_then, since = best, 0
            if back:
                x = peak
    return seen


@pytest.mark.parametrize("names", [("skeleton",), ("rgb",), ("rgb", "skeleton")], ids=str)
@pytest.mark.parametrize("steps", [7, 30, 60])
def test_apgd_follows_algorithm_1_point_by_point(names, steps, clips) -> None:
    """On a hill whose top lies inside the ball, so that steps overshoot and must be halved."""
    clips = clips._replace(
        present=torch.ones_like(clips.present), label=torch.zeros_like(clips.label)
    )
    clips = clips.select(torch.tensor([0, 1]))
    eps = {m: {"rgb": 0.1, "skeleton": 0.3}[m] for m in names}
    draw = torch.Generator().manual_seed(3)
    top, steep = {}, {}
    for m in names:
        x = getattr(clips, m)[:1]
        top[m] = torch.rand(x.shape, generator=draw) * 2 - 1
        steep[m] = torch.rand(x.shape, generator=draw) ** 4 * 5 + 0.1
    clean = {m: getattr(clips, m) for m in names}
    asked = []

    def height(x):
        parts = [
            (steep[m] * ((x[m] - base[m]) / eps[m] - 0.5 * top[m]).square()).mean((1, 2, 3, 4))
            + 0.3 * (4 * (x[m] - base[m]) / eps[m]).sin().mean((1, 2, 3, 4))
            for m in names
        ]
        return -sum(parts)

    def model(rgb, skeleton, present):
        x = {"rgb": rgb, "skeleton": skeleton}
        asked.append({m: x[m].detach().clone() for m in names})
        return torch.stack([torch.full((len(rgb),), 100.0), height(x)], 1)

    base = clean
    threat = ThreatModel(**{m: Budget("Linf", e, -9, 9) for m, e in eps.items()})
    found = ATTACKS["apgd_ce"](
        model, clips, threat, seed=0, steps=steps, early_stop=False,
        loss=lambda output, label: output[:, 1],
    )  # fmt: skip
    assert len(asked) == steps + 1
    for i in range(clips.size):
        base = {m: clean[m][i : i + 1] for m in names}

        def slope(x):
            leaves = {m: t.clone().requires_grad_(True) for m, t in x.items()}
            grads = torch.autograd.grad(height(leaves).sum(), list(leaves.values()))
            return dict(zip(leaves, grads, strict=True))

        expected = algorithm_1(
            {m: asked[0][m][i : i + 1] for m in names},
            lambda m, x, base=base: torch.minimum(
                torch.maximum(x, base[m] - eps[m]), base[m] + eps[m]
            ),
            slope,
            lambda x: float(height(x).double()),
            eps,
            steps,
        )
        for ours, theirs in zip(asked, expected, strict=True):
            assert all(agree(ours[m][i : i + 1], theirs[m], eps[m]) for m in names)
        values = [float(height(x)) for x in expected]
        best = expected[values.index(max(values))]
        assert all(agree(getattr(found, m)[i : i + 1], best[m], eps[m]) for m in names)


def agree(ours, theirs, eps) -> bool:
    """Equal but for the few elements that stand at the top, where rounding decides the sign."""
    return float(((ours - theirs).abs() < 1e-4 * eps).float().mean()) > 0.97


def test_apgd_begins_every_restart_at_another_point(clips) -> None:
    model = Recorder()
    clips = clips._replace(label=torch.zeros_like(clips.label))
    ATTACKS["apgd_ce"](model, clips, THREAT, seed=0, steps=4, n_restarts=2, early_stop=False)
    first, second = model.skeleton[0], model.skeleton[5]
    assert all(not torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_targeted_apgd_goes_from_the_likeliest_wrong_class_down(clips) -> None:
    """Each class has a joint that raises it; a target's joint moves to the edge of the budget."""
    ranks = torch.tensor([0.0, 3.0, 1.0, 2.0, -1.0])  # label 0 leads; then classes 1, 3, 2, 4

    def model(rgb, skeleton, present):
        asked.append(skeleton.detach().clone())
        lift = skeleton[:, 0, 0, :5, 0]
        return ranks + 0.1 * lift + torch.tensor([10.0, 0, 0, 0, 0])

    clean = clips._replace(
        skeleton=torch.zeros_like(clips.skeleton),
        present=torch.ones_like(clips.present),
        label=torch.zeros_like(clips.label),
    )
    threat = ThreatModel(skeleton=Budget("Linf", 0.05))
    for targets, order in ((2, [1, 3]), (9, [1, 3, 2, 4])):
        asked: list[torch.Tensor] = []
        ATTACKS["apgd_t"](model, clean, threat, seed=0, steps=6, n_targets=targets)
        assert len(asked) == 1 + 7 * len(order)
        for turn, target in enumerate(order):
            end = asked[1 + 7 * turn + 5][:, 0, 0, :5, 0]
            assert (end[:, target] > 0.0499).all(), (turn, target)


def test_the_first_point_that_fools_is_kept_whatever_its_loss(clips) -> None:
    """On the way up the loss falls just where clips begin to be fooled, and then rises again."""

    def strip(rgb, skeleton, present):
        height = skeleton.mean((1, 2, 3, 4))
        inside = (height > 0.012) & (height < 0.028)
        climbed = height - inside.float()
        return torch.stack([torch.where(inside, -1.0, 1.0), 0 * height, climbed - 9], 1)

    clean = clips._replace(
        skeleton=torch.zeros_like(clips.skeleton),
        present=torch.ones_like(clips.present),
        label=torch.zeros_like(clips.label),
    )
    options = {"steps": 10, "rel_alpha": 0.1, "random_start": False, "keep": "best"}
    threat = ThreatModel(skeleton=Budget("Linf", 0.05))
    for early_stop in (False, True):
        found = pgd(
            strip, clean, threat, seed=0, loss=lambda output, label: output[:, 2],
            early_stop=early_stop, **options,
        )  # fmt: skip
        assert (found.skeleton - 0.015).abs().max() < 1e-6


def test_a_clip_that_one_restart_fools_meets_no_other(clips) -> None:
    sizes = []

    def model(rgb, skeleton, present):
        sizes.append(len(rgb))
        bright = (rgb.mean((1, 2, 3, 4)) > 0.5).float()
        height = skeleton.mean((1, 2, 3, 4))
        return torch.stack([0 * height, height + 18 * bright - 9], 1)

    bright = torch.tensor([0.9, 0.1, 0.1, 0.9])[:, None, None, None, None]
    clean = clips._replace(
        rgb=bright.expand_as(clips.rgb).clone(), label=torch.zeros_like(clips.label)
    )
    options = {"steps": 2, "keep": "best", "early_stop": True}
    pgd(model, clean, THREAT, seed=0, n_restarts=2, **options)
    assert sizes == [4, 2, 2, 2]


def test_a_step_moves_each_modality_by_its_own_budget(clips) -> None:
    """Of 40 steps one is 2.5 / 40 eps long, in the direction that lowers the label's logit."""
    model = Recorder()
    clips = clips._replace(
        rgb=clips.rgb.clamp(0.2, 0.8),
        label=torch.zeros_like(clips.label),
        present=torch.ones_like(clips.present),
    )
    pgd(model, clips, THREAT, seed=0, steps=40, random_start=False)
    for seen, eps in ((model.rgb, 8 / 255), (model.skeleton, 0.05)):
        torch.testing.assert_close(seen[0] - seen[1], torch.full_like(seen[0], eps / 16))
        torch.testing.assert_close(seen[1] - seen[2], torch.full_like(seen[0], eps / 16))


def test_transfer_climbs_the_source_and_never_asks_the_model(clips) -> None:
    source, model = Recorder(), Recorder()
    clips = clips._replace(label=torch.zeros_like(clips.label))
    transfer(model, clips, THREAT, seed=0, source=source, steps=3)
    assert len(source.rgb) == 3 and not model.rgb


def test_square_keeps_a_proposal_only_when_the_margin_grows(clips) -> None:
    """The margin that counts is best wrong minus right: over the queries it never falls."""
    kept = []

    class Watch(Recorder):
        def __call__(self, rgb, skeleton, present):
            logits = super().__call__(rgb, skeleton, present) + torch.tensor([50.0, 0.0])
            kept.append(float((logits[:, 1] - logits[:, 0]).sum()))
            return logits

    clips = clips._replace(
        label=torch.zeros_like(clips.label), present=torch.ones_like(clips.present)
    )
    model = Watch()
    found = ATTACKS["square"](model, clips, THREAT, seed=0, queries=60, early_stop=False)
    assert len(kept) == 60
    end = model(*found[:3])
    assert float((end[:, 1] - end[:, 0]).sum()) >= max(kept[:-1]) - 1e-4
    moved = [
        {
            name: bool((seen[q] != seen[q - 1]).any())
            for name, seen in (("rgb", model.rgb), ("skeleton", model.skeleton))
        }
        for q in range(1, 60)
    ]
    assert sum(m["rgb"] for m in moved) > 10 and sum(m["skeleton"] for m in moved) > 10


def test_windows_of_square_shrink_on_the_schedule_of_the_paper(clips) -> None:
    """Of 10 000 queries p is halved at 10, 50, 200, ...: of 100 it is p/4 at once, p/256 at 81."""
    clean = clips._replace(
        rgb=torch.full((4, 3, 8, 32, 32), 0.5), label=torch.zeros_like(clips.label)
    )
    model = Recorder()
    threat = ThreatModel(rgb=Budget("Linf", 0.1))
    options = {"seed": 0, "queries": 100, "p_init": 0.8, "early_stop": False}
    ATTACKS["square"](model, clean, threat, **options)

    def changed(query: int) -> float:
        """The share of a clip that differs from the one kept: the nearest of those before."""
        now = model.rgb[query]
        return min(
            float((now != model.rgb[q]).any(1).float().mean())
            for q in range(max(0, query - 25), query)
        )

    early = [changed(q) for q in (1, 3)]
    late = [changed(q) for q in range(85, 100)]
    assert 0.05 < max(early) < 0.35  # 0.2, less where signs agree
    assert max(late) < 0.03


@pytest.mark.parametrize("name", sorted(ADAPTIVE))
def test_attacks_on_a_part_climb_the_fused_prediction_too(name, clips) -> None:
    """Where heads and modality weights do not move at all, the fused logits are what is left."""

    def model(rgb, skeleton, present):
        plane = rgb.mean((1, 2, 3, 4)) + skeleton.mean((1, 2, 3, 4))
        flat = torch.zeros(len(rgb), 2) + torch.tensor([1.0, 0.0])
        logits = torch.stack([plane + 5, -plane], 1)
        weights = torch.full((len(rgb), 2), 0.5)
        return ModelOutput(logits, {"rgb": flat, "skeleton": flat}, {"logits": weights}, {})

    clean = clips._replace(
        rgb=clips.rgb.clamp(0.2, 0.8),
        label=torch.zeros_like(clips.label),
        present=torch.ones_like(clips.present),
    )
    found = ADAPTIVE[name](model, clean, THREAT, seed=0, steps=40)
    assert (found.rgb - clean.rgb).mean() < -0.9 * 8 / 255
    assert (found.skeleton - clean.skeleton).mean() < -0.9 * 0.05


def test_of_several_restarts_the_end_of_highest_loss_is_kept(clips) -> None:
    """Two hills: which one a clip climbs hangs on its start, and one of them is higher."""
    label = torch.zeros_like(clips.label)
    clean = clips._replace(
        skeleton=torch.zeros_like(clips.skeleton),
        label=label,
        present=torch.ones_like(clips.present),
    )

    def hills(rgb, skeleton, present):
        x = skeleton[:, 0, 0, 0, 0] / 0.05
        height = torch.where(x < 0, -0.5 * x, x)
        return torch.stack([torch.full_like(x, 50.0), height], 1)

    threat = ThreatModel(skeleton=Budget("Linf", 0.05))
    many = clean.select(torch.arange(4).repeat(8))._replace(
        clip_id=tuple(f"clip{i}" for i in range(32))
    )
    options = {"steps": 5, "n_restarts": 8, "keep": "best", "loss": "margin"}
    found = pgd(hills, many, threat, seed=0, **options)
    right = (found.skeleton[:, 0, 0, 0, 0] > 0).float().mean()
    assert float(right) > 0.95  # 1 - 2^-8 of them begin on the higher side at least once
