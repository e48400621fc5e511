"""Square and hard-label search get past models without gradients, within their queries."""

import pytest
import torch
from torch import nn

from components.attacks import Budget, Counter, SingleStream, ThreatModel
from components.attacks.hard_label import hard_label
from components.attacks.pgd import pgd
from components.attacks.square import _RECORD, _cuboid, _hopeless, _limbs, square
from components.batch import Batch
from components.seeds import clip_seeds

WIDE = ThreatModel(Budget("Linf", 0.1), Budget("Linf", 0.15))


class Label(nn.Module):
    """Only the predicted class comes out: no margin and no gradient."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = model

    def forward(self, rgb, skeleton, present):
        logits = self.inner(rgb, skeleton, present).logits.detach()
        return nn.functional.one_hot(logits.argmax(1), logits.shape[1]).float()


@pytest.fixture(scope="module")
def clips(model, make_batch):
    return make_batch(model, size=6)


def test_square_needs_no_gradient_and_keeps_to_its_queries(model, clips, wrong):
    counter = Counter(model)
    found = square(counter, clips, WIDE, seed=0, queries=60)
    assert counter.backwards.total() == 0
    assert all(1 <= counter.forwards[c] <= 60 for c in clips.clip_id)
    assert wrong(model, found).float().mean() > 0.5
    assert min(counter.forwards.values()) < 60, "fooled clips must stop costing"


def test_square_without_early_stop_finds_no_less(model, clips, wrong):
    one = square(model, clips, WIDE, seed=0, queries=40)
    other = square(model, clips, WIDE, seed=0, queries=40, early_stop=False)
    assert torch.equal(wrong(model, one), wrong(model, other))


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("cell", ["rgb", "skeleton"])
def test_square_gains_query_by_query(norm, cell, model, clips):
    eps = 0.02 if norm == "Linf" else 0.3
    threat = ThreatModel(Budget(norm, eps), Budget(norm, eps)).cell(cell)
    margins = []
    for queries in (1, 10, 60):
        found = square(model, clips, threat, seed=0, queries=queries, early_stop=False)
        logits = model(*found[:3]).logits
        right = logits.gather(1, clips.label[:, None]).squeeze(1)
        margins.append((logits.scatter(1, clips.label[:, None], -99).amax(1) - right).mean().item())
    assert margins[0] < margins[1] < margins[2]


def test_windows_have_the_asked_share_and_lie_apart_per_clip():
    clean = torch.zeros(4, 3, 8, 16, 16)
    seeds = clip_seeds(0, "abcd", "x")
    for query, share in ((1, 0.5), (2, 0.5), (1, 0.1), (2, 0.1)):
        inside, _ = _cuboid(clean, seeds, share, query)
        size = inside.expand(4, 1, 8, 16, 16).flatten(1).float().mean(1)
        assert ((size / share - 1).abs() < 0.35).all()
    first, _ = _cuboid(clean, seeds, 0.02, 2)
    assert not torch.equal(first[0], first[1])
    joints, _ = _limbs(torch.zeros(4, 3, 20, 25, 2), seeds, 0.25, 1)
    assert joints.any(4).any(2).sum((1, 2)).tolist() == [12] * 4
    assert joints.any(4).any(3).sum((1, 2)).tolist() == [10] * 4
    assert (joints.any(2).any(2).sum((1, 2)) == 1).all()


def test_hard_label_search_beats_a_model_that_only_names_a_class(model, clips):
    hidden = Counter(Label(model))
    assert not pgd(hidden, clips, WIDE, seed=0, steps=3, random_start=False).rgb.ne(clips.rgb).any()
    hidden.reset()
    found = hard_label(hidden, clips, WIDE, seed=0, queries=80)
    assert (hidden.forwards.most_common(1)[0][1]) <= 87 and hidden.backwards.total() == 0
    assert (hidden(*found[:3]).argmax(1) != clips.label).float().mean() > 0.5
    WIDE.check(clips, found)


def test_hard_label_walks_along_the_boundary_where_noise_fails():
    """A plane whose corner lies inside the budget, but random corners do not cross it."""
    draw = torch.Generator().manual_seed(0)
    plane = torch.randn(3, 4, 8, 8, generator=draw).sign()
    plane[0] = 3.0  # one block of the direction matters most

    def sided(rgb):
        away = ((rgb - 0.5) * plane).mean((1, 2, 3, 4))
        return torch.stack([0.037 - away, away - 0.037], 1)

    clips = Batch(
        torch.full((2, 3, 4, 8, 8), 0.5),
        torch.zeros(2, 3, 6, 25, 2),
        torch.ones(2, 6, 2, dtype=torch.bool),
        torch.zeros(2, dtype=torch.int64),
        ("a", "b"),
    )
    threat = ThreatModel(Budget("Linf", 0.035))
    net = SingleStream(sided, "rgb")
    assert (sided(hard_label(net, clips, threat, seed=0, queries=20).rgb).argmax(1) == 0).all()
    assert (sided(hard_label(net, clips, threat, seed=0, queries=400).rgb).argmax(1) == 1).all()


def test_a_query_is_the_least(model, clips):
    with pytest.raises(ValueError, match="at least 1"):
        square(model, clips, WIDE, seed=0, queries=0)


def test_a_clip_is_given_up_by_the_later_half_of_its_record():
    """Margins after every 50 queries, of 250: the pace since the middle one goes on to the end."""
    record = [torch.tensor([a, b, -9.0]) for a, b in ((-9.0, -9.0), (-2.5, -2.5), (-1.5, -2.3))]
    assert _hopeless(record, 5 * _RECORD).tolist() == [False, True, True]
    assert not _hopeless(record[:1], 5 * _RECORD).any()
