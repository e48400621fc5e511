"""Evaluation counts what it says: each test fails on one small break that once went unseen."""

import pytest
import torch

from components.attacks import ATTACKS, Budget, ThreatModel
from components.evaluation import evaluate_model
from components.evaluation.cascade import run_cascade
from components.evaluation.robust_counts import robust_counts
from components.evaluation.suite import Entry

NOTHING = ThreatModel(rgb=Budget("Linf", 0.0), skeleton=Budget("Linf", 0.0))
FGSM = (Entry("fgsm", "fgsm", individual=True),)


@pytest.fixture(scope="module")
def spoilt(honest, clips):
    """The clips with the labels of the first ten moved on, and which are right nevertheless."""
    label = clips.label.clone()
    label[:10] = (label[:10] + 1) % 4
    spoilt = clips._replace(label=label)
    with torch.no_grad():
        right = honest(*spoilt[:3]).logits.argmax(1) == label
    assert 20 < int(right.sum()) <= 30
    return spoilt, right


def test_a_clip_that_is_wrong_when_clean_is_not_robust(honest, spoilt, threat) -> None:
    clips, right = spoilt
    n = int(right.sum())
    counts = robust_counts(honest, [clips], NOTHING, steps=1)
    assert counts == {"clips": 40, "clean": n, "rgb": n, "skeleton": n, "both": n}
    for attacked in (threat, NOTHING):
        result = run_cascade(honest, clips, FGSM, attacked, seed=0)
        for verdicts in result.standing.values():
            assert not (verdicts & ~right).any()
    summary = evaluate_model(honest, clips, NOTHING, FGSM, checks=False).summary
    for figure in (summary["clean_acc"], *summary["worst"].values()):
        assert (figure["value"], figure["n"]) == (n / 40, 40)


def test_counts_are_those_of_seed_0_unless_said_otherwise(honest, clips, threat, monkeypatch):
    asked = []

    def noted(model, batch, threat, *, seed):
        asked.append(seed)
        return batch

    monkeypatch.setitem(ATTACKS, "noted", noted)
    robust_counts(honest, [clips], threat, attack="noted")
    robust_counts(honest, [clips], threat, attack="noted", seed=4)
    assert asked == [0] * 3 + [4] * 3
