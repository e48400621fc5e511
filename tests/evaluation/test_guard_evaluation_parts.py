"""The parts an evaluation is made of, each held to figures by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from components.attacks import ATTACKS
from components.errors import UserError
from components.evaluation.cascade import Worst, clips_per_pass_on, run_cascade
from components.evaluation.comparable import clips_fingerprint, differences_in_terms
from components.evaluation.cost import count_passes
from components.evaluation.curves import check_factors
from components.evaluation.evaluate import (
    Chunk,
    evaluate_model,
    model_outputs,
    total_costs,
    worst_status,
)
from components.evaluation.fixed import FixedShape, _persons
from components.evaluation.gallery import CANDIDATES
from components.evaluation.metrics import Z95, accuracy_of, paired_difference
from components.evaluation.robust_counts import from_counts, robust_accuracy
from components.evaluation.scores import device_of, score
from components.evaluation.sizes import SIZES
from components.evaluation.subset import draw, rank
from components.evaluation.suite import Entry
from tests._support.linear import THREAT, Linear, clips


def test_verdicts_margins_heads_and_weights() -> None:
    some = clips([0.3, 0.3, -0.3, 0.1], [0.1, -0.5, 0.1, 0.1], [0, 0, 2, 1])
    found = score(Linear(), some)
    assert found.prediction.tolist() == [0, 2, 2, 0]
    assert found.margin.tolist() == pytest.approx([0.4, -0.4, 0.2, -0.2])
    assert found.correct.tolist() == [True, False, True, False]
    assert found.heads["rgb"].tolist() == [True, True, True, False]
    assert found.heads["skeleton"].tolist() == [True, False, False, False]
    assert found.weights["late"][:, 0].tolist() == pytest.approx([0.36, 0.36, 0.24, 0.32])

    class Odd(nn.Module):
        def forward(self, rgb, skeleton, present):
            logits = torch.tensor([[3.0, 1.0], [3.0, torch.inf], [torch.nan, 1], [3, -torch.inf]])
            return logits[: len(rgb)]

    odd = score(Odd(), some._replace(label=torch.zeros(4, dtype=torch.int64)))
    assert odd.correct.tolist() == [True, False, False, False]
    assert odd.heads == odd.weights == {} and float(odd.margin[0]) == 2.0
    assert device_of(Linear()) == device_of(Odd()) == torch.device("cpu")
    assert device_of(nn.Linear(1, 1, device="meta")).type == "meta"
    buffered = nn.Module()
    buffered.register_buffer("x", torch.zeros(1, device="meta"))
    assert device_of(buffered).type == "meta"
    assert model_outputs(Linear(4), some) == (frozenset({"weights", "aux"}), 4)
    assert model_outputs(Odd(), some) == (frozenset(), 2)


@pytest.mark.parametrize("moved", [("rgb",), ("skeleton",), ("rgb", "skeleton"), ()], ids=str)
def test_passes_count_clips_forward_and_gradients_back(moved) -> None:
    some = clips([0.1] * 5, [0.1] * 5)
    inputs = {m: getattr(some, m).clone().requires_grad_(m in moved) for m in ("rgb", "skeleton")}
    one, other = Linear(), Linear()
    with count_passes(one, other) as passes:
        for model in (one, other, one):
            logits = model(inputs["rgb"], inputs["skeleton"], some.present).logits
            if moved:
                logits[:, 0].sum().backward()
        assert (passes.forward, passes.backward) == (15, 15 if moved else 0)
        with torch.no_grad():
            one(inputs["rgb"], inputs["skeleton"], some.present)
        assert (passes.forward, passes.backward) == (20, 15 if moved else 0)
    one(inputs["rgb"], inputs["skeleton"], some.present)
    assert passes.forward == 20
    for name in moved:
        assert inputs[name].grad[:, 0, 0, 0, 0].tolist() == [3.0] * 5


def test_what_a_cascade_spends_and_leaves_out() -> None:
    some = clips([0.3, 0.02, -0.4], [0.1, 0.1, 0.1])
    entries = [Entry("pgd", "pgd", {"steps": 2})]
    result = run_cascade(Linear(), some, entries, THREAT, seed=0)
    assert result.worst == {} and result.exchanged == {}
    for outcome in result.outcomes:
        assert 0 < outcome.run.cost["seconds"] < 60 and outcome.run.found.size == 0
        assert outcome.run.forward.tolist() == [3] * len(outcome.index)
        assert outcome.run.backward.tolist() == [2] * len(outcome.index)
        # Two steps and the verdict, each on sixteen places.
        assert (outcome.run.cost["forward"], outcome.run.cost["backward"]) == (48.0, 32.0)
    assert (result.clean.cost["forward"], result.clean.cost["backward"]) == (16.0, 0.0)
    assert result.clean.forward.tolist() == [1, 1, 1] and result.clean.backward.tolist() == [0] * 3
    (bare,) = run_cascade(
        Linear(), some, entries, THREAT, seed=0, cells=("rgb",), clips_per_pass=0
    ).outcomes
    assert bare.run.cost["forward"] == 6.0  # two clips are right
    sizes = {clips_per_pass_on(torch.device(name)) for name in ("cuda", "meta")}
    assert sizes == {64} and clips_per_pass_on(torch.device("cpu")) == 16 == CANDIDATES
    twin = (Entry("transfer", "transfer", {"steps": 3}, needs="twin"),)
    (moved,) = run_cascade(
        Linear(), some, twin, THREAT, seed=0, cells=("rgb",), twin=Linear()
    ).outcomes
    assert moved.run.cost["forward"] >= 48 + 16 and moved.run.cost["backward"] == 48
    with pytest.raises(UserError, match="at least 1"):
        FixedShape(Linear(), 0)
    for size in (1, 3, 4, 16):
        model, sizes = Linear(), []
        model.register_forward_pre_hook(lambda _, x, sizes=sizes: sizes.append(len(x[0])))
        assert FixedShape(model, size)(*some[:3]).logits.shape == (3, 3)
        assert sizes == [size] * -(-3 // size)
    elsewhere = _persons(torch.ones(3, 4, 2, dtype=torch.bool, device="meta"))
    assert elsewhere.shape == (3,) and elsewhere.device.type == "meta"


def test_no_more_clips_are_read_than_the_subset_needs() -> None:
    read = []

    def reading():
        for i in range(4):
            read.append(i)
            part = clips([0.3] * 8, [0.1] * 8)
            yield part._replace(clip_id=tuple(f"{i}-{name}" for name in part.clip_id))

    assert draw(Linear(), reading()).size == 16 and read == [0, 1]


def test_costs_add_up_by_attack_and_cell() -> None:
    def rows(factor: int) -> list[dict]:
        return [
            {"attack": a, "cell": c, "clips": factor, "forward": 10.0 * factor + i,
             "backward": 100.0 * factor + i, "seconds": 1000.0 * factor + i}
            for i, (a, c) in enumerate((("clean", "clean"), ("pgd", "rgb"), ("pgd", "both")))
        ]  # fmt: skip

    found = total_costs([Chunk(None, rows(1)), Chunk(None, rows(2))])
    figures = {"clips": 3, "forward": 30.0, "backward": 300.0, "seconds": 3000.0}
    summed = [{k: v + 2 * i * (k != "clips") for k, v in figures.items()} for i in range(3)]
    assert found["attacks"] == {
        "clean": {"clean": summed[0]}, "pgd": {"rgb": summed[1], "both": summed[2]},
    }  # fmt: skip
    assert found["total"] == {"forward": 96.0, "backward": 906.0, "seconds": 9006.0}
    order = ["pass", "too-few", "warn", "fail"]
    for i, worst in enumerate(order):
        assert worst_status([{"status": s} for s in order[: i + 1]]) == worst
    assert worst_status([]) == "pass"


def test_accuracy_under_one_attack_is_asked_for_in_full(monkeypatch) -> None:
    asked = []

    def noted(model, batch, threat, *, seed, **parameters):
        asked.append((batch.size, seed, parameters, tuple(threat.budgets)))
        return batch._replace(rgb=batch.rgb - 0.05)

    monkeypatch.setitem(ATTACKS, "noted", noted)
    monkeypatch.setitem(ATTACKS, "margin_pgd", noted)
    some = clips([0.3, 0.02, -0.4], [0.0, 0.0, 0.0])
    words = {"attack": "noted", "cells": ("rgb",), "seed": 7, "strength": 5}
    model, sizes = Linear(), set()
    model.register_forward_pre_hook(lambda _, inputs: sizes.add(len(inputs[0])))
    found = robust_accuracy(model, [some, some], THREAT, **words)
    assert sizes == {1, 2, 3}  # one to ask for the logits, and no clips that fill up a pass
    assert asked == [(2, 7, {"strength": 5}, ("rgb",))] * 2
    wanted = {"clips": 6, "clean_acc": accuracy_of(4, 6), "robust_acc": {"rgb": accuracy_of(2, 6)}}
    assert found == wanted == from_counts({"clips": 6, "clean": 4, "rgb": 2})
    asked.clear()
    found = robust_accuracy(Linear(), some, THREAT)
    assert [(cell, a["value"]) for cell, a in found["robust_acc"].items()] == [
        ("rgb", 1 / 3), ("skeleton", 2 / 3), ("both", 1 / 3),
    ]  # fmt: skip
    assert {seed for _, seed, _, _ in asked} == {0} and len(asked) == 3
    for wrong in (3, -1):
        spoilt = some._replace(label=torch.full((3,), wrong))
        with pytest.raises(UserError, match="label"):
            robust_accuracy(Linear(), [some, spoilt], THREAT)
    with pytest.raises(UserError, match="no clips"):
        robust_accuracy(Linear(), [], THREAT)
    with pytest.raises(UserError, match="metres"):
        robust_accuracy(Linear(), some._replace(skeleton=1000 * some.skeleton + 900), THREAT)
    pixels = some._replace(skeleton=1000 * some.skeleton + 900)
    assert robust_accuracy(Linear(), pixels, THREAT, unit="pixels")["clips"] == 3


def test_the_interval_of_a_paired_difference_is_the_bootstrap_s() -> None:
    """Held to its normal approximation, and pinned: a change of it changes every comparison."""
    a, b = np.arange(400) % 4 < 3, np.arange(400) % 8 < 5
    found = paired_difference(a, b)
    value = float(a.mean() - b.mean())
    error = 1.96 * float(np.std(a.astype(float) - b)) / 20
    assert found["value"] == value == 0.125 and found["n"] == 400
    assert found["low"] == pytest.approx(value - error, abs=0.006)
    assert found["high"] == pytest.approx(value + error, abs=0.006)
    assert (found["low"], found["high"]) == pytest.approx((0.07, 0.18), abs=0.013)
    assert paired_difference(a, b, seed=0, draws=2000) == found
    counts = np.random.default_rng(0).multinomial(400, [0.25, 0.125, 0.625], size=2000)
    low, high = np.quantile((counts[:, 0] - counts[:, 1]) / 400, [0.025, 0.975])
    assert (found["low"], found["high"]) == (low, high)
    assert paired_difference([], []) == {
        "value": None, "low": -1.0, "high": 1.0, "p": 1.0, "n": 0,
    }  # fmt: skip
    assert paired_difference([True], [False])["value"] == 1.0
    assert accuracy_of(1, 1)["low"] == pytest.approx(1 / (1 + Z95**2))
    for left, right in (([True], [True, False]), ([[True]], [[False]])):
        with pytest.raises(UserError, match="two equal rows"):
            paired_difference(left, right)


def test_the_first_of_equally_bad_inputs_is_kept() -> None:
    some = clips([0.1] * 4, [0.1] * 4)
    worst = Worst(some.rgb.clone(), some.skeleton.clone(), torch.tensor([0.5, 0.5, 0.5, 0.5]))
    margin = torch.tensor([0.5, 0.4, torch.nan])
    worst.offer(torch.tensor([0, 2, 3]), some.rgb[:3] + 1, some.skeleton[:3] + 1, margin)
    assert worst.margin[:3].tolist() == pytest.approx([0.5, 0.5, 0.4]) and worst.margin[3].isnan()
    changed = [i for i in range(4) if not torch.equal(worst.rgb[i], some.rgb[i])]
    assert changed == [2, 3]
    assert [i for i in range(4) if not torch.equal(worst.skeleton[i], some.skeleton[i])] == changed


def test_names_and_orders_that_stay_what_they_are() -> None:
    """They stand in files that are compared with later ones."""
    assert rank("S001C001P001R001A001").hex() == "c3f654bbac5f8dc5"
    assert clips_fingerprint(["b", "a"]) == "7e18f737311b2dc3"


def test_terms_of_curves_and_terms_that_nobody_states() -> None:
    one = {"eps": {"rgb": 1}, "norm": {"rgb": "Linf"}, "attack": {"name": "pgd"}, "clips": 5}
    for key in ("eps", "norm", "attack"):
        assert differences_in_terms(one, {**one, key: {"rgb": "other"}}) == [key]
        unsaid = {k: v for k, v in one.items() if k != key}
        assert differences_in_terms(one, unsaid) == differences_in_terms(unsaid, one) == []
    entry = {"name": "pgd", "needs": ""}
    assert differences_in_terms({"attacks": [entry]}, {"suite": "thin", "attacks": [entry]}) == []
    assert differences_in_terms({"attacks": [entry]}, {}) == ["attack suite"]
    check_factors((0.0, 1.0))
    with pytest.raises(UserError):
        check_factors((0, 0))


def test_sizes_and_weights_of_the_summary_are_means_of_the_records(monkeypatch) -> None:
    def moved(model, batch, threat, *, seed, by):
        joints = batch.skeleton.clone()
        joints[:, 0, 0, 0, 0] -= by * torch.arange(1, batch.size + 1)
        rgb = batch.rgb - by if threat.rgb is not None else batch.rgb
        return batch._replace(
            rgb=rgb, skeleton=joints if threat.skeleton is not None else joints * 0
        )

    monkeypatch.setitem(ATTACKS, "moved", moved)
    some = clips([0.3, 0.2, -0.4, -0.2, 0.1], [0.1] * 5, [0, 0, 2, 2, 1])
    entries = [
        Entry("one", "moved", {"by": 0.02}, individual=True),
        Entry("two", "moved", {"by": 0.05}),
    ]
    found = evaluate_model(Linear(), some, THREAT, entries, classes=["x", "y", "z"], checks=False)
    rows = found.records.to_pylist()
    assert {row["cell"] for row in rows} == {"clean", "rgb", "skeleton", "both", "exchanged"}
    assert found.records.schema.metadata == {b"schema": b"evaluation-records/2"}
    for row in rows:
        if row["cell"] in ("clean", "exchanged"):
            assert (row["forward"], row["backward"], row["broke"]) == (1.0, 0.0, False)
            assert not any(row[size] for size in SIZES)

    def weights(chosen: list[dict]) -> dict:
        told: dict = {}
        for one in (one for row in chosen for one in row["weights"]):
            told.setdefault(one["place"], {}).setdefault(one["group"], []).append(one["rgb"])
        return {
            p: pytest.approx([np.mean(groups[g]) for g in sorted(groups)], abs=1e-6)
            for p, groups in told.items()
        }

    def chosen(**words: object) -> list[dict]:
        return [row for row in rows if all(row[k] == v for k, v in words.items())]

    cells = ("rgb", "skeleton", "both")
    for name in ("one", "two"):
        for cell in cells:
            part = chosen(cell=cell, attack=name)
            assert part
            for size, figures in found.summary["sizes"][name][cell].items():
                values = [row[size] for row in part]
                wanted = {"mean": np.mean(values), "max": np.max(values)}
                assert figures == pytest.approx(wanted, abs=1e-6)
            assert found.summary["weights"]["attacked"][name][cell] == weights(part)
    told = found.summary["weights"]
    assert told["clean"] == weights(chosen(cell="clean"))
    assert list(told["clean"]) == ["early", "late"] and len(told["clean"]["early"]) == 2
    for label, name in enumerate("xyz"):
        assert told["clean_by_class"][name] == weights(chosen(cell="clean", label=label))
        for cell in cells:
            wanted = weights(chosen(cell=cell, label=label))
            assert told["attacked_by_class"][name][cell] == wanted
    assert [row["class"] for row in found.summary["per_class"]] == ["x", "y", "z"]
    for label, row in enumerate(found.summary["per_class"]):
        right = [r["correct"] for r in chosen(cell="clean", label=label)]
        assert row["clean_acc"] == accuracy_of(sum(right), len(right))
    plain = evaluate_model(Linear(), some, THREAT, (), checks=False)
    assert (plain.summary["model"], plain.summary["seed"], plain.results) == ("model", 0, [])
