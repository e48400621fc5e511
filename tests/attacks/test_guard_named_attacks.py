"""Attacks by their names: each starts elsewhere, and hands on every setting that it is given."""

import torch
from torch import nn

from components.attacks import ADAPTIVE, ATTACKS, Budget, Counter, ThreatModel, pgd
from components.attacks.sparse import sparse_frames

NARROW = ThreatModel(Budget("Linf", 1e-3), Budget("Linf", 1e-3))


class Asked(nn.Module):
    """The model; it keeps the skeletons that it is asked about."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner, self.seen = model, []

    def forward(self, rgb, skeleton, present):
        self.seen.append(skeleton.detach().clone())
        return self.inner(rgb, skeleton, present)


def test_no_two_attacks_start_at_the_same_random_point(model, clips) -> None:
    """What one of them misses the next has its own chance to find."""
    with_targets = ("apgd_t", "margin_pgd", "margin_pgd_t")  # these look at the clean clips first
    names = ("pgd", "cw", "fgsm", "apgd_ce", "apgd_dlr", "square", *with_targets, *ADAPTIVE)
    short = {"fgsm": {"random_start": True}, "square": {"queries": 1}}
    short |= {"margin_pgd_t": {"target_steps": 1}, "apgd_t": {"steps": 1, "n_targets": 1}}
    starts: list[torch.Tensor] = []
    for name in names:
        net = Asked(model)
        ATTACKS[name](net, clips, NARROW, seed=0, **short.get(name, {"steps": 1}))
        starts.append(net.seen[name in with_targets] - clips.skeleton)
    net = Asked(model)
    sparse_frames(net, clips, NARROW, seed=0, frames=6, steps=1)
    starts.append(net.seen[1] - clips.skeleton)
    for i, one in enumerate(starts):
        assert one.abs().max() > 5e-4
        assert not any(torch.equal(one, other) for other in starts[:i]), i


def test_attacks_that_are_pgd_by_another_name_hand_all_their_settings_on(model, clips) -> None:
    wide = NARROW.scaled(8, 8)
    shared = {"seed": 1, "steps": 3, "n_restarts": 2}

    def both(one, other) -> None:
        counters = Counter(model), Counter(model)
        ours, theirs = one(counters[0]), other(counters[1])
        assert torch.equal(ours.rgb, theirs.rgb) and torch.equal(ours.skeleton, theirs.skeleton)
        assert counters[0].forwards == counters[1].forwards

    for early_stop in (False, True):
        options = {**shared, "early_stop": early_stop}
        both(
            lambda net, options=options: ATTACKS["cw"](net, clips, wide, **options),
            lambda net, options=options: pgd(
                net, clips, wide, loss="margin", keep="best", name="cw", **options
            ),
        )
    options = {"seed": 1, "rel_alpha": 0.4, "random_start": True, "loss": "margin"}
    both(
        lambda net: ATTACKS["fgsm"](net, clips, wide, **options),
        lambda net: pgd(net, clips, wide, steps=1, name="fgsm", **options),
    )
    found = sparse_frames(model, clips, wide, frames=2, loss="ce", **shared)
    only = {
        name: (getattr(found, name) != getattr(clips, name)).flatten(3).any(3).any(1)
        for name in ("rgb", "skeleton")
    }
    assert all((moved.sum(1) == 2).all() for moved in only.values())
    again = pgd(
        model, clips, wide, keep="best", name="sparse_frames", **shared,
        only={name: moved[:, None, :, None, None] for name, moved in only.items()},
    )  # fmt: skip
    assert torch.equal(found.rgb, again.rgb) and torch.equal(found.skeleton, again.skeleton)


def test_of_several_restarts_training_gets_the_last_one(model, clips) -> None:
    """Also where clips that are fooled stop: nothing is fooled here, so nothing stops."""
    options = {"seed": 0, "steps": 1, "rel_alpha": 0.1, "n_restarts": 4}
    tiny = NARROW.scaled(1e-2, 1e-2)
    whole = pgd(model, clips, tiny, **options)
    stopped = pgd(model, clips, tiny, early_stop=True, **options)
    best = pgd(model, clips, tiny, keep="best", **options)
    assert torch.equal(stopped.skeleton, whole.skeleton)
    assert not torch.equal(best.skeleton, whole.skeleton)


def test_every_target_has_as_many_restarts_as_asked(model, clips) -> None:
    counter = Counter(model)
    tiny = NARROW.scaled(1e-3, 1e-3)
    ATTACKS["apgd_t"](counter, clips, tiny, seed=0, steps=2, n_targets=2, n_restarts=3)
    assert set(counter.forwards.values()) == {1 + 2 * 3 * 3}
