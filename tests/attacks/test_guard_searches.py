"""Searches without gradients: each query asks about the point that the description says."""

import math
from collections import Counter as Tally

import numpy as np
import pytest
import torch

from components.attacks import Budget, Counter, ThreatModel
from components.attacks.hard_label import hard_label
from components.attacks.square import (
    _cuboid,
    _hopeless,
    _limbs,
    _share,
    _signs,
    _stripes,
    _window,
    square,
)
from components.batch import Batch
from components.seeds import clip_seeds

OPEN = ThreatModel(Budget("Linf", 0.01, -99, 99), Budget("Linf", 0.02))


def clips(size: int, frames: int = 4, side: int = 6) -> Batch:
    draw = torch.Generator().manual_seed(0)
    return Batch(
        torch.rand(size, 3, frames, side, side, generator=draw),
        torch.randn(size, 3, 6, 25, 2, generator=draw),
        torch.ones(size, 6, 2, dtype=torch.bool),
        torch.zeros(size, dtype=torch.int64),
        tuple(f"c{i}" for i in range(size)),
    )


SEEDS = clip_seeds(0, [f"c{i}" for i in range(400)], "x")


def test_the_share_is_halved_right_after_each_of_the_papers_queries() -> None:
    for halved, at in enumerate((10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)):
        assert _share(0.8, at / 10_000) == pytest.approx(0.8 / 2**halved)
        assert _share(0.8, (at + 1) / 10_000) == pytest.approx(0.4 / 2**halved)
    assert _share(0.3, 0.0) == 0.3


@pytest.mark.parametrize("share", [1.0, 0.3, 0.02, 1e-5])
@pytest.mark.parametrize("query", [1, 2, 4, 7])
def test_windows_of_a_video_span_what_their_share_says_and_lie_anywhere(share, query) -> None:
    """Queries 0 and 1 of four span all frames; the others a cube root of the share."""
    size = (8, 16, 12)
    inside, signs = _cuboid(torch.zeros(400, 3, *size), SEEDS, share, query)
    frames = 8 if query % 4 < 2 else max(1, round(share ** (1 / 3) * 8))
    side = math.sqrt(share * 8 / frames)
    spans = (frames, *(max(1, min(n, round(side * n))) for n in size[1:]))
    assert signs == (3, 1, 1, 1)
    box = inside.expand(400, 1, *size)[:, 0].numpy()
    starts = []
    for axis, (length, span) in enumerate(zip(size, spans, strict=True)):
        along = box.any(tuple(a + 1 for a in range(3) if a != axis))
        assert (along.sum(1) == span).all()
        first = along.argmax(1)
        assert all(row[f : f + span].all() for row, f in zip(along, first, strict=True))
        assert set(first) == set(range(length - span + 1))
        starts.append(first)
    assert (box.sum((1, 2, 3)) == math.prod(spans)).all()
    if len(set(starts[1])) > 1 and len(set(starts[2])) > 1:
        assert abs(np.corrcoef(starts[1], starts[2])[0, 1]) < 0.2


@pytest.mark.parametrize("share", [1.0, 0.25, 0.04, 1e-6])
def test_windows_of_a_skeleton_hold_joints_of_one_person_over_some_frames(share) -> None:
    inside, signs = _limbs(torch.zeros(400, 3, 20, 25, 2), SEEDS, share, 1)
    assert signs == (3, 1, 25, 1)
    box = inside.expand(400, 1, 20, 25, 2)[:, 0].numpy()
    frames, joints, persons = box.any((2, 3)), box.any((1, 3)), box.any((1, 2))
    span, count = max(1, round(share**0.5 * 20)), max(1, round(share**0.5 * 25))
    assert (frames.sum(1) == span).all() and set(frames.argmax(1)) == set(range(20 - span + 1))
    assert (joints.sum(1) == count).all() and (persons.sum(1) == 1).all()
    assert np.abs(joints.mean(0) - count / 25).max() < 0.1
    assert 0.4 < persons[:, 0].mean() < 0.6
    assert (box.sum((1, 2, 3)) == span * count).all()


def test_signs_are_even_and_change_with_clip_place_and_query() -> None:
    signs = _signs(SEEDS, (3, 1, 25, 1), 4)
    assert set(signs.unique().tolist()) == {-1.0, 1.0} and abs(float(signs.mean())) < 0.03
    assert signs.mean(0).abs().max() < 0.25
    assert not torch.equal(signs, _signs(SEEDS, (3, 1, 25, 1), 7))


def test_the_first_query_paints_columns_of_the_video_and_joints_of_the_bodies() -> None:
    """At the edge of the budget; along rows and frames, and along a body's time, all is one."""
    region = OPEN.region(clips(8))
    seeds = {"rgb": SEEDS[:8], "skeleton": SEEDS[8:16]}
    for name, eps, still, other in (("rgb", 0.01, (2, 3), (1, 4)),
                                    ("skeleton", 0.02, (2,), (1, 3, 4))):  # fmt: skip
        change = _stripes(region, seeds)[name] - region.clean[name]
        torch.testing.assert_close(change.abs(), torch.full_like(change, eps), rtol=0, atol=1e-6)
        assert all(change.std(axis).max() < 1e-6 for axis in still)
        assert all(change.std(axis).max() > eps / 2 for axis in other)


@pytest.mark.parametrize("name", ["rgb", "skeleton"])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_window_goes_to_the_edge_and_in_l2_takes_half_of_the_energy(norm, name) -> None:
    threat = ThreatModel(Budget(norm, 0.3, -99, 99), Budget(norm, 0.3))
    region = threat.region(clips(3))
    clean, seeds, query, share = region.clean[name], SEEDS[:3], 5, 0.2
    old = 0.01 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    found = _window(region, name, clean + old, {name: seeds}, share, query) - clean
    window = _cuboid if name == "rgb" else _limbs
    inside, shape = window(clean, seeds, share, query)
    inside = inside.expand_as(clean)
    signs = _signs(seeds, shape, 3 * query + 1).expand_as(clean)
    for b in range(3):
        at, new = inside[b], torch.zeros_like(clean[b])
        if norm == "Linf":
            new = torch.where(at, 0.3 * signs[b], old[b])
        else:
            new[at] = signs[b][at] * 0.3 * (0.5 / int(at.sum())) ** 0.5
            new[~at] = old[b][~at]
            new *= 0.3 / new.norm()
        torch.testing.assert_close(found[b], new, rtol=1e-3, atol=1e-6)


def falls_at(query: int):
    """A model that is wrong from its `query`-th call on (from 0) for the first clip alone."""
    calls = []

    def model(rgb, skeleton, present):
        calls.append(len(rgb))
        logits = torch.tensor([[1.0, 0.0]]).repeat(len(rgb), 1)
        if len(calls) == query + 1:
            logits[0] = torch.tensor([0.0, 1.0])
        return logits

    return model, calls


def test_fooled_clips_leave_at_every_tenth_query_and_hopeless_ones_after_a_hundred() -> None:
    for query, left in ((0, 1), (3, 11), (10, 11), (11, 21)):
        model, calls = falls_at(query)
        square(model, clips(2), OPEN, seed=0, queries=25)
        assert calls == [2] * left + [1] * (25 - left)
    model, calls = falls_at(999)
    square(model, clips(2), OPEN, seed=0, queries=500, give_up=True)
    assert calls == [2] * 100  # two entries of its record, and no gain between them
    model, calls = falls_at(3)
    square(model, clips(2), OPEN, seed=0, queries=25, early_stop=False)
    assert calls == [2] * 25


def test_a_record_is_carried_on_at_the_pace_of_its_later_half() -> None:
    """Of 400 queries, with entries each 50: what is gained in the rest, at that pace."""
    margins = [-9.0, -8.0, -7.0, -5.0, -3.0]  # the later half gained 4 in two entries, 3 remain
    assert not _hopeless([torch.tensor([m]) for m in margins], 400).any()
    for lower, given_up in ((2.9, False), (3.1, True)):  # -3 + 2 * 3 = 3
        record = [torch.tensor([m - lower]) for m in margins]
        assert _hopeless(record, 400).tolist() == [given_up]
    two = [torch.tensor([-9.0]), torch.tensor([-8.0])]  # six remain, at a pace of 1
    assert _hopeless(two, 400).tolist() == [True] and _hopeless(two, 600).tolist() == [False]
    assert _hopeless(two[:1], 50).tolist() == [False]


class Plane:
    """Wrong where x lies `far` budgets along all ones; keeps what it was asked, in budgets."""

    def __init__(self, batch: Batch, far: float) -> None:
        self.clean, self.far = batch, far
        self.asked: list[dict[str, np.ndarray]] = []

    def __call__(self, rgb, skeleton, present):
        x = {
            "rgb": ((rgb - self.clean.rgb[: len(rgb)]) / 0.01).double(),
            "skeleton": ((skeleton - self.clean.skeleton[: len(skeleton)]) / 0.02).double(),
        }
        self.asked.append({name: v[0].flatten().numpy() for name, v in x.items()})
        along = torch.stack([v.flatten(1).mean(1) for v in x.values()]).mean(0)
        return torch.stack([self.far - along, along - self.far], 1).float()


def test_hard_label_asks_noise_then_far_away_then_ever_finer_flips() -> None:
    batch = clips(1)
    model = Plane(batch, 1e9)  # never wrong
    found = hard_label(model, batch, OPEN, seed=0, queries=50)
    assert len(model.asked) == 50
    patterns = set()
    for turn in range(10):  # a fifth of them: at the edge, alike in 4, 16, ... blocks
        for values in model.asked[turn].values():
            n = len(values)
            blocks = min(4 ** (1 + turn % 6), n)
            assert np.abs(np.abs(values) - 1).max() < 1e-3
            place = np.arange(n) * blocks // n
            assert all(np.ptp(values[place == k]) < 1e-3 for k in range(min(blocks, 64)))
            assert turn % 6 < 1 or len(np.unique(np.flatnonzero(np.diff(values)))) > blocks / 4
            patterns.add(np.sign(values).tobytes())
    assert len(patterns) > 17  # of 4 blocks there are no more than 16
    rest = iter(model.asked[10:])
    assert all(np.abs(v - 32).max() < 0.01 for v in next(rest).values())
    asked = [
        (part, level, block)
        for level in range(5) for block in range(2**level) for part in ("rgb", "skeleton")
    ]  # fmt: skip
    for (part, level, block), values in zip(asked, rest, strict=False):
        for name, v in values.items():
            place = np.arange(len(v)) * 2**level // len(v)
            turned = (place == block) & (name == part)
            assert np.abs(v - np.where(turned, -32, 32)).max() < 0.01
    torch.testing.assert_close(found.rgb, batch.rgb + 0.01, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.skeleton, batch.skeleton + 0.02, rtol=0, atol=1e-5)


def test_hard_label_halves_six_times_to_the_boundary_and_flips_from_there() -> None:
    batch = clips(1)
    model = Plane(batch, 5.3)
    hard_label(model, batch, OPEN, seed=0, queries=20)
    told = [float(values["rgb"].mean()) for values in model.asked[4:11]]
    assert told == pytest.approx([32, 16, 8, 4, 6, 5, 5.5], rel=1e-3)
    flipped = model.asked[11]
    assert flipped["rgb"].mean() == pytest.approx(-5.5, rel=1e-3)
    assert flipped["skeleton"].mean() == pytest.approx(5.5, rel=1e-3)
    assert len(model.asked) == 20  # 4 of noise, 7 to the boundary, 9 flips


def test_clips_of_a_hard_label_search_pay_for_their_own_queries_alone() -> None:
    """One meets its boundary far away and pays for the bisection; the other is never wrong."""
    batch = clips(3)
    bright = torch.tensor([10.0, 0.0, 0.0])[:, None, None, None, None]
    batch = batch._replace(rgb=batch.rgb + bright)

    def model(rgb, skeleton, present):
        far = (rgb.mean((1, 2, 3, 4)) > 10.5 + 0.01 * 5.3).float()
        return torch.stack([0.5 - far, far - 0.5], 1)

    counter = Counter(model)
    found = hard_label(counter, batch, OPEN, seed=0, queries=30)
    tally = Tally(counter.forwards)
    assert tally["c1"] == tally["c2"] == 30 and 30 <= tally["c0"] <= 37
    change = (found.skeleton - batch.skeleton).abs()
    torch.testing.assert_close(change, torch.full_like(change, 0.02), rtol=0, atol=1e-5)


def test_hard_label_in_l2_asks_at_the_length_of_the_budget() -> None:
    batch = clips(1)
    asked = []

    def model(rgb, skeleton, present):
        asked.append((rgb - batch.rgb).norm())
        return torch.tensor([[1.0, 0.0]])

    threat = ThreatModel(Budget("L2", 0.4, -99, 99))
    hard_label(model, batch, threat, seed=0, queries=10)
    assert [float(x) for x in asked[:3]] == pytest.approx([0.4, 0.4, 32 * 0.4], rel=1e-4)
