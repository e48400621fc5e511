"""The cascade: what it counts, what it saves, and that saving changes no verdict."""

import pytest
import torch
from torch import nn

from components.attacks import ATTACKS, ThreatModel
from components.batch import Batch
from components.evaluation.cascade import run_cascade
from components.evaluation.cost import count_passes
from components.evaluation.records import to_records
from components.evaluation.robust_counts import robust_accuracy, robust_counts
from components.evaluation.scores import score
from components.evaluation.suite import SUITES, Entry, entries_of, suite_hash
from components.evaluation.summary import Records

STEPS = (
    Entry("fgsm", "fgsm", individual=True),
    Entry("pgd5", "pgd", {"steps": 5}),
    Entry("early", "pgd", {"steps": 10, "early_stop": True, "name": "early"}),
)


def test_cascade_and_exhaustive_agree_clip_by_clip(
    honest: nn.Module, clips: Batch, threat: ThreatModel
):
    cascade = run_cascade(honest, clips, STEPS, threat, seed=3, clips_per_pass=8)
    full = run_cascade(honest, clips, STEPS, threat, seed=3, clips_per_pass=8, exhaustive=True)
    for cell in ("rgb", "skeleton", "both"):
        assert torch.equal(cascade.standing[cell], full.standing[cell])
    spent, all_of_it = (
        sum(o.run.cost["forward"] + o.run.cost["backward"] for o in r.outcomes)
        for r in (cascade, full)
    )
    assert spent < all_of_it
    rows = {(o.cell, o.entry.name): o for o in full.outcomes}
    for outcome in cascade.outcomes:
        other = rows[outcome.cell, outcome.entry.name].run.scores
        assert torch.equal(outcome.run.scores.margin, other.margin[outcome.index])


def test_both_is_never_easier_to_defend_than_one(honest, clips, threat):
    standing = run_cascade(honest, clips, STEPS, threat, seed=0).standing
    assert not bool((standing["both"] & ~(standing["rgb"] & standing["skeleton"])).any())
    assert 0 < int(standing["both"].sum()) < clips.size


def test_every_attack_breaks_at_least_as_much_in_both(honest, clips, threat):
    result = run_cascade(honest, clips, STEPS, threat, seed=0)
    table = Records(to_records(result))
    rgb, skeleton, both = (table.fooled(cell, "fgsm") for cell in ("rgb", "skeleton", "both"))
    assert both.sum() > rgb.sum() and not (~both & (rgb | skeleton)).any()
    (again,) = [o for o in result.outcomes if (o.cell, o.entry.name) == ("both", "fgsm")]
    assert not set(again.index.tolist()) & set((rgb | skeleton).nonzero()[0].tolist())


def test_later_attacks_only_see_standing_clips(honest, clips, threat):
    result = run_cascade(honest, clips, STEPS, threat, seed=0, cells=("rgb",))
    first, second, third = (o for o in result.outcomes)
    right = result.clean.scores.correct.nonzero().flatten().tolist()
    assert first.index.tolist() == right
    assert second.index.tolist() == [
        i for i, ok in zip(right, first.run.scores.correct.tolist(), strict=True) if ok
    ]
    assert set(third.index.tolist()) <= set(second.index.tolist())
    for outcome in result.outcomes:
        assert torch.equal(outcome.broke, ~outcome.run.scores.correct)


def test_an_attack_that_leaves_its_budget_is_put_back(honest, clips, threat, monkeypatch):
    def greedy(model: nn.Module, batch: Batch, threat: ThreatModel, *, seed: int) -> Batch:
        return batch._replace(rgb=1 - batch.rgb, skeleton=batch.skeleton + 1)

    monkeypatch.setitem(ATTACKS, "greedy", greedy)
    entry = [Entry("greedy", "greedy")]
    for outcome in run_cascade(honest, clips, entry, threat, seed=0).outcomes:
        sizes = outcome.run.sizes
        rgb, skeleton = sizes["rgb_linf"].max(), sizes["skeleton_linf"].max()
        assert rgb <= (8 / 255 + 1e-6 if outcome.cell != "skeleton" else 0)
        assert skeleton <= (0.05 + 1e-6 if outcome.cell != "rgb" else 0)
        assert max(rgb, skeleton) > 0


def test_worst_inputs_reproduce_the_verdicts(honest, clips, threat):
    result = run_cascade(honest, clips, STEPS, threat, seed=0, keep=True, clips_per_pass=8)
    for cell, worst in result.worst.items():
        again = score(honest, clips._replace(rgb=worst.rgb, skeleton=worst.skeleton))
        assert torch.equal(again.correct, result.standing[cell])
        threat.cell(cell).check(clips, clips._replace(rgb=worst.rgb, skeleton=worst.skeleton))


def test_passes_are_counted_at_the_model(honest, clips, threat):
    eight = clips.select(torch.arange(8))
    entry = [Entry("pgd", "pgd", {"steps": 5})]
    (outcome,) = run_cascade(honest, eight, entry, threat, seed=0, cells=("both",)).outcomes
    n = len(outcome.index)
    # 5 steps and one look at the result; 16 places although fewer clips stand.
    assert outcome.run.forward.tolist() == [6] * n
    assert outcome.run.backward.tolist() == [5] * n
    assert outcome.run.cost["backward"] % 16 == 0


def test_counting_does_not_change_gradients(honest, clips):
    def gradient() -> torch.Tensor:
        rgb = clips.rgb.clone().requires_grad_(True)
        output = honest(rgb, clips.skeleton, clips.present).logits.sum()
        return torch.autograd.grad(output, rgb)[0]

    plain = gradient()
    with count_passes(honest) as passes:
        counted = gradient()
    assert torch.equal(plain, counted)
    assert (passes.forward, passes.backward) == (clips.size, clips.size)


def test_model_is_left_as_it_was(honest, clips, threat):
    honest.train()
    before = [p.clone() for p in honest.parameters()]
    run_cascade(honest, clips, STEPS, threat, seed=0, cells=("both",))
    assert honest.training
    assert all(torch.equal(a, b) for a, b in zip(before, honest.parameters(), strict=True))
    assert all(p.grad is None or p.requires_grad for p in honest.parameters())
    honest.eval()


def test_validation_counts_add_up_over_workers(honest, clips, threat):
    whole = robust_counts(honest, [clips], threat, steps=5, seed=1)
    halves = [clips.select(torch.arange(0, 20)), clips.select(torch.arange(20, 40))]
    parts = [robust_counts(honest, [half], threat, steps=5, seed=1) for half in halves]
    assert whole == {key: sum(part[key] for part in parts) for key in whole}
    table = robust_accuracy(honest, halves, threat, steps=5, seed=1)
    assert table["clips"] == 40
    assert table["robust_acc"]["both"]["value"] == whole["both"] / 40


def test_cells_follow_the_threat_model(honest, clips, threat):
    video_only = ThreatModel(rgb=threat.rgb)
    assert list(robust_counts(honest, [clips], video_only, steps=1)) == ["clips", "clean", "rgb"]
    with pytest.raises(ValueError, match="no cell 'audio'"):
        robust_counts(honest, [clips], threat, cells=("audio",))
    with pytest.raises(ValueError, match="no attack 'pdg'; there are: "):
        robust_counts(honest, [clips], threat, attack="pdg")


def test_suites_are_data_with_a_hash():
    assert len({suite_hash(entries) for entries in SUITES.values()}) == len(SUITES)
    changed = [SUITES["thin"][0], Entry("pgd20", "pgd", {"steps": 21}, individual=True)]
    changed += SUITES["thin"][2:]
    assert suite_hash(changed) != suite_hash(SUITES["thin"])
    with pytest.raises(ValueError, match="no suite 'fast'; there are: thin, quick, full, standard"):
        entries_of("fast")
    for entries in SUITES.values():
        assert {"fgsm", "pgd20"} <= {entry.name for entry in entries if entry.individual}
