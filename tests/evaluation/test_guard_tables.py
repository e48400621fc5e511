"""Which clips each attack sees, and every figure counted from that, held to tables by hand."""

import pytest
import torch
from torch import nn

from components.attacks import ATTACKS, Budget, ThreatModel
from components.batch import Batch, ModelOutput
from components.evaluation import evaluate_model
from components.evaluation.cascade import run_cascade
from components.evaluation.checks import graded
from components.evaluation.curves import standing_grid
from components.evaluation.metrics import wilson
from components.evaluation.suite import SUITES, Entry, entries_of, suite_hash

THREAT = ThreatModel(rgb=Budget("Linf", 1.0), skeleton=Budget("Linf", 1.0))
CELLS = ("rgb", "skeleton", "both")


class Planted(nn.Module):
    """Answers what the first joint says, and 2 where the first pixel or the second joint is set."""

    def forward(self, rgb, skeleton, present):
        answer = skeleton[:, 0, 0, 0, 0].round().long()
        broken = (rgb[:, 0, 0, 0, 0] > 0.4) | (skeleton[:, 0, 0, 1, 0] > 0.5)
        answer = torch.where(broken, torch.full_like(answer, 2), answer)
        logits = nn.functional.one_hot(answer, 3).float()
        weights = torch.stack([0.25 + 0.5 * broken, 0.75 - 0.5 * broken], 1)
        return ModelOutput(logits, {}, {"logits": weights}, {})


def planted_attack(model, batch, threat, *, seed, breaks):
    """Sets what misleads `Planted`, for the clips that `breaks` names for this cell."""
    cell = "both" if len(threat.budgets) == 2 else next(iter(threat.budgets))
    hit = torch.tensor([int(name[1:]) in breaks.get(cell, ()) for name in batch.clip_id])
    rgb, skeleton = batch.rgb.clone(), batch.skeleton.clone()
    if cell != "skeleton":
        rgb[hit, 0, 0, 0, 0] = 0.9
    if cell != "rgb":
        skeleton[hit, 0, 0, 1, 0] = 0.9
    return batch._replace(rgb=rgb, skeleton=skeleton)


@pytest.fixture
def planted(monkeypatch) -> Batch:
    """Ten clips of two classes in turn; the last is wrong on clean input."""
    monkeypatch.setitem(ATTACKS, "planted", planted_attack)
    label = torch.arange(10) % 2
    skeleton = torch.zeros(10, 3, 4, 25, 2)
    skeleton[:, 0, 0, 0, 0] = label.float()
    present = torch.ones(10, 4, 2, dtype=torch.bool)
    label = torch.where(torch.arange(10) == 9, 1 - label, label)
    ids = tuple(f"c{i}" for i in range(10))
    return Batch(torch.zeros(10, 3, 2, 4, 4), skeleton, present, label, ids)


A = {"rgb": (0, 1), "skeleton": (2,), "both": (3,)}
B = {"rgb": (1, 4), "skeleton": (2, 5), "both": (6,)}
C = {"rgb": (0, 7), "skeleton": (), "both": ()}
SUITE = (
    Entry("a", "planted", {"breaks": A}, individual=True),
    Entry("b", "planted", {"breaks": B}),
    Entry("c", "planted", {"breaks": C}, individual=True),
)
# (cell, attack): the clips it runs on, and those that it is the first of its cell to break
RUNS = {
    ("rgb", "a"): ({0, 1, 2, 3, 4, 5, 6, 7, 8}, {0, 1}),
    ("rgb", "b"): ({2, 3, 4, 5, 6, 7, 8}, {4}),
    ("rgb", "c"): ({0, 1, 2, 3, 4, 5, 6, 7, 8}, {7}),
    ("skeleton", "a"): ({0, 1, 2, 3, 4, 5, 6, 7, 8}, {2}),
    ("skeleton", "b"): ({0, 1, 3, 4, 5, 6, 7, 8}, {5}),
    ("skeleton", "c"): ({0, 1, 2, 3, 4, 5, 6, 7, 8}, set()),
    ("both", "a"): ({3, 4, 5, 6, 7, 8}, {3}),
    ("both", "b"): ({6, 8}, {6}),
    ("both", "c"): ({1, 2, 3, 4, 5, 6, 8}, set()),
}
LEFT = {"rgb": {2, 3, 5, 6, 8}, "skeleton": {0, 1, 3, 4, 6, 7, 8}, "both": {8}}


def test_each_attack_runs_on_the_clips_that_the_rules_leave(planted) -> None:
    result = run_cascade(Planted(), planted, SUITE, THREAT, seed=0, keep=True)
    found = {
        (o.cell, o.entry.name): (
            set(o.index.tolist()),
            {i for i, hit in zip(o.index.tolist(), o.broke.tolist(), strict=True) if hit},
        )
        for o in result.outcomes
    }
    assert found == RUNS
    assert [(o.cell, o.entry.name) for o in result.outcomes] == list(RUNS)
    for cell in CELLS:
        assert set(result.standing[cell].nonzero().flatten().tolist()) == LEFT[cell]
        worst = result.worst[cell]
        again = Planted()(worst.rgb, worst.skeleton, planted.present).logits.argmax(1)
        assert set((again == planted.label).nonzero().flatten().tolist()) == LEFT[cell]


def test_exhaustive_every_attack_runs_on_every_clip(planted) -> None:
    result = run_cascade(Planted(), planted, SUITE, THREAT, seed=0, exhaustive=True)
    assert all(o.index.tolist() == list(range(10)) for o in result.outcomes)
    for cell in CELLS:
        assert set(result.standing[cell].nonzero().flatten().tolist()) == LEFT[cell]


def figure(successes: int, n: int, **more) -> dict:
    low, high = wilson(successes, n)
    return {"value": successes / n, "low": low, "high": high, "n": n, **more}


def test_every_figure_of_the_summary(planted) -> None:
    batches = [planted.select(torch.arange(4)), planted.select(torch.arange(4, 10))]
    evaluation = evaluate_model(
        Planted(), batches, THREAT, SUITE, name="m", classes=["x", "y", "z"], checks=False, seed=7
    )
    summary = evaluation.summary
    assert (summary["model"], summary["seed"], summary["clips"]) == ("m", 7, 10)
    assert summary["clean_acc"] == figure(9, 10)
    assert summary["worst"] == {c: figure(len(LEFT[c]), 10) for c in CELLS}
    individual = {"a": (7, 8, 5), "c": (7, 9, 7)}
    standing = {"b": (6, 7, 1)}
    for scope, table in (("individual", individual), ("standing", standing)):
        for name, counts in table.items():
            assert summary["robust_acc"][name] == {
                c: figure(k, 10, scope=scope) for c, k in zip(CELLS, counts, strict=True)
            }
    assert summary["fooling_rate"] == {c: figure(9 - len(LEFT[c]), 9) for c in CELLS}
    assert summary["broken_by"] == {
        c: {name: len(RUNS[c, name][1]) for name in "abc"} for c in CELLS
    }
    # Rows are true labels: the ninth clip is a 0 by its label and is taken for a 1.
    assert summary["confusion"] == [[5, 1, 0], [0, 4, 0], [0, 0, 0]]
    per_class = summary["per_class"]
    for label, row in enumerate(per_class[:2]):
        clips = {i for i in range(9) if i % 2 == label} | ({9} if label == 0 else set())
        text = repr(row)
        right = len(clips - {9})
        assert repr(figure(right, len(clips))) in text
        for cell in CELLS:
            assert repr(figure(len(clips & LEFT[cell]), len(clips))) in text
    assert summary["suite_hash"] == suite_hash(SUITE)


def test_every_row_of_the_records(planted) -> None:
    table = evaluate_model(Planted(), planted, THREAT, SUITE, checks=False).records
    rows = {}
    for row in table.to_pylist():
        rows.setdefault((row["cell"], row["attack"]), []).append(row)
    assert set(rows) == {("clean", "clean"), *RUNS, ("exchanged", "rgb"), ("exchanged", "skeleton")}
    breaks = {"a": A, "b": B, "c": C}
    for (cell, attack), (seen, broke) in RUNS.items():
        part = {int(row["clip_id"][1:]): row for row in rows[cell, attack]}
        assert set(part) == seen
        for i, row in part.items():
            hit = i in breaks[attack][cell]
            assert row["correct"] == (not hit) and row["broke"] == (i in broke)
            assert row["prediction"] == (2 if hit else i % 2) and row["label"] == i % 2
            assert row["margin"] == (-1.0 if hit else 1.0)
            sizes = [row[n] for n in ("rgb_linf", "rgb_l2", "skeleton_linf", "skeleton_l2")]
            wanted = [0.9 * (hit and cell != "skeleton")] * 2 + [0.9 * (hit and cell != "rgb")] * 2
            assert sizes == pytest.approx(wanted)
            (weight,) = row["weights"]
            assert weight == {"place": "logits", "group": 0, "rgb": 0.75 if hit else 0.25}
            assert (row["forward"], row["backward"]) == (1.0, 0.0)
    clean = {row["clip_id"]: row for row in rows["clean", "clean"]}
    assert [clean[f"c{i}"]["correct"] for i in range(10)] == [True] * 9 + [False]
    assert not any(row["broke"] for row in clean.values())


def test_the_twin_is_the_source_of_the_transfer_attack(planted, monkeypatch) -> None:
    asked = []

    def transfer(model, batch, threat, *, seed, source, **parameters):
        asked.append((source, seed))
        return batch

    monkeypatch.setattr("components.evaluation.scores.transfer", transfer)
    suite = (Entry("transfer", "transfer", needs="twin"), *SUITE)
    twin = Planted()
    evaluate_model(Planted(), planted, THREAT, suite, twin=twin, checks=False, seed=5)
    assert asked
    for source, seed in asked:
        assert seed == 5
        assert source is twin or twin in list(source.modules())
    asked.clear()
    names = evaluate_model(Planted(), planted, THREAT, suite, checks=False).summary["robust_acc"]
    assert not asked and "transfer" not in names
    with pytest.raises(ValueError, match="needs a twin"):
        run_cascade(Planted(), planted, suite, THREAT, seed=0)


def test_labels_without_a_logit_are_refused(planted) -> None:
    for wrong in (-1, 3):
        spoilt = planted._replace(label=torch.full_like(planted.label, wrong))
        with pytest.raises(ValueError):
            evaluate_model(Planted(), spoilt, THREAT, SUITE, checks=False)


def test_checks_look_at_a_subset_that_mixes_the_clips(planted, monkeypatch) -> None:
    seen = []

    def spy(model, clips, threat, *, seed):
        seen.append((clips.clip_id, seed))
        return []

    monkeypatch.setattr("components.evaluation.evaluate.check_model", spy)
    ids = tuple(f"S001C001P{i:03d}R001A001" for i in range(40))
    many = planted.select(torch.arange(40) % 9)._replace(clip_id=ids)
    batches = [many.select(torch.arange(25)), many.select(torch.arange(25, 40))]
    for parts in (batches, many, batches[::-1]):
        evaluate_model(Planted(), parts, THREAT, (), seed=3)
    chosen = {frozenset(names) for names, _ in seen}
    assert len(chosen) == 1 and {seed for _, seed in seen} == {3}
    (chosen,) = chosen
    assert len(chosen) == 16 and chosen != set(ids[:16])
    assert any(name in chosen for name in ids[25:])


def test_a_flag_warns_fails_and_does_not_trust_what_is_no_number() -> None:
    statuses = [graded(value, 0.1, 0.2) for value in (0.0, 0.1, 0.11, 0.2, 0.21, float("nan"))]
    assert statuses == ["pass", "pass", "warn", "warn", "fail", "fail"]


def test_the_suites_are_the_published_ones() -> None:
    """A table is comparable when its suite is: no attack is weakened or dropped unnoticed."""
    standard = {e.name: e for e in SUITES["standard"]}
    assert list(standard) == [
        "fgsm", "pgd20", "margin_pgd", "margin_pgd_t", "attention_touched", "attention_other",
        "heads", "weakest_head", "cross", "apgd_t", "transfer", "square",
    ]  # fmt: skip
    assert standard["pgd20"].parameters == {"steps": 20, "early_stop": True}
    assert standard["margin_pgd"].parameters == {"steps": 9, "n_targets": 3, "target_steps": 6}
    assert standard["margin_pgd_t"].parameters == {"target_steps": 22, "n_targets": 9}
    assert standard["apgd_t"].parameters == {"steps": 16, "n_targets": 9}
    assert standard["square"].parameters == {"queries": 1000, "give_up": True}
    assert {standard[n].parameters["steps"] for n in list(standard)[4:9]} == {25}
    assert standard["transfer"].needs == "twin"
    hashes = {name: suite_hash(entries) for name, entries in SUITES.items()}
    assert {name: hashes[name] for name in HASHES} == HASHES
    plain = [e.name for e in entries_of("standard")]
    assert plain == ["fgsm", "pgd20", "margin_pgd", "margin_pgd_t", "apgd_t", "square"]
    assert [e.name for e in entries_of("standard", frozenset({"aux"}))] == [
        *plain[:4], "heads", "weakest_head", "cross", *plain[4:],
    ]  # fmt: skip


HASHES = {
    "thin": "865fcf2ca07d",
    "quick": "c3b22c371900",
    "full": "d8b4b02557f5",
    "standard": "9e829924366d",
    "standard-1": "942ca67918f4",
}


def test_curves_take_a_clip_to_fall_at_every_larger_budget(planted, monkeypatch) -> None:
    """An attack that misses at the larger budget what it found at the smaller one inside it."""
    asked = []

    def fickle(model, batch, threat, *, seed, **parameters):
        key = tuple(round(b.eps, 3) for b in (threat.rgb, threat.skeleton) if b is not None)
        cell = "both" if len(threat.budgets) == 2 else next(iter(threat.budgets))
        asked.append((cell, key))
        breaks = {("rgb", (0.5,)): (0, 1), ("skeleton", (0.6,)): (2,), ("both", (1.0, 0.6)): (3,)}
        hits = breaks.get((cell, key), ())
        return planted_attack(model, batch, threat, seed=seed, breaks={cell: hits})

    monkeypatch.setitem(ATTACKS, "margin_pgd", fickle)
    threat = ThreatModel(rgb=Budget("Linf", 1.0), skeleton=Budget("Linf", 1.2))
    grid = standing_grid(Planted(), planted, threat, (0.0, 0.5, 1.0), seed=0)
    assert grid == [[9, 8, 8], [7, 6, 6], [7, 5, 5]]
    assert ("rgb", (1.0,)) in asked and ("both", (0.5, 1.2)) in asked
    # One attack a place of the grid, and none where there is no budget.
    assert len(asked) == 8 and not any(0.0 in key for _, key in asked)
