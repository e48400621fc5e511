"""Weights that work cost accuracy when they are taken away; constant ones cost nothing."""

import pytest
import torch
from torch import nn

from components.attacks import ATTACKS, Budget, ThreatModel
from components.batch import Batch, ModelOutput
from components.errors import UserError
from components.evaluation.interventions import intervene, replaced
from components.evaluation.suite import Entry
from components.models.fusions.amr import ModalityAttention

THREAT = ThreatModel(rgb=Budget("Linf", 0.01), skeleton=Budget("Linf", 0.01))


class Chooser(nn.Module):
    """Each clip's label stands in one stream alone, the other says the opposite with more force;
    the first pixel tells which stream is to be believed."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.attention = ModalityAttention(1)
        self.attention.query.data.copy_(torch.tensor([[strength], [-strength]]))

    def forward(self, rgb, skeleton, present):
        video = rgb[:, 0, 0, 0, 1] - 0.5
        bodies = skeleton[:, 0, 0, 0, 0]
        logits = torch.stack([torch.stack([-s, s], 1) for s in (video, bodies)], -1)
        told = (rgb[:, 0, 0, 0, 0] - 0.5)[:, None, None].expand(-1, 2, 1)
        weights = self.attention(told)
        aux = {"rgb": logits[..., 0], "skeleton": logits[..., 1]}
        fused = (weights[:, None] * logits).sum(-1)
        return ModelOutput(fused, aux, {"logits": weights}, {})


def _clips(n: int = 42) -> Batch:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 2, (n,), generator=generator)
    believe_video = torch.arange(n) % 2 == 0
    sign = label * 2.0 - 1
    rgb = torch.full((n, 3, 1, 1, 2), 0.5)
    rgb[:, 0, 0, 0, 0] = 0.5 + 0.4 * (believe_video * 2.0 - 1)
    rgb[:, 0, 0, 0, 1] = 0.5 + sign * torch.where(believe_video, 0.2, -0.4)
    skeleton = torch.zeros(n, 3, 1, 25, 2)
    skeleton[:, 0, 0, 0, 0] = sign * torch.where(believe_video, -0.4, 0.2)
    present = torch.ones(n, 1, 2, dtype=torch.bool)
    return Batch(rgb, skeleton, present, label, tuple(f"c{i}" for i in range(n)))


def test_weights_that_choose_are_worth_what_they_save() -> None:
    told = intervene(Chooser(20.0), [_clips()], THREAT, "thin")
    assert all(one["value"] == 1.0 for one in told["frozen"].values())
    # Half a batch, 21 clips, further lie the weights of a clip that believes the other stream.
    assert set(told["shuffled"]) == {"clean", "rgb", "skeleton", "both"}
    assert all(one["value"] == 1.0 for one in told["shuffled"].values())
    assert told["weight"]["clean"][0] == pytest.approx(0.5, abs=0.01)
    assert told["weight"]["clean"][1] > 0.4


@pytest.mark.parametrize("n", [2, 3])
def test_two_clips_are_enough_to_exchange_weights(n: int) -> None:
    told = intervene(Chooser(20.0), [_clips(n)], THREAT, [])
    assert told["shuffled"]["clean"]["value"] == (1.0 if n == 2 else pytest.approx(2 / 3))


@pytest.mark.parametrize("words", [{}, {"seed": 5}])
def test_interventions_attack_what_the_threat_allows(words: dict, monkeypatch) -> None:
    """With no clips that fill up a pass; without a second cell there is nothing to exchange."""
    asked = []

    def noted(model, batch, threat, *, seed):
        asked.append((seed, tuple(threat.budgets)))
        return batch

    monkeypatch.setitem(ATTACKS, "noted", noted)
    model, sizes = Chooser(20.0), set()
    model.register_forward_pre_hook(lambda _, inputs: sizes.add(len(inputs[0])))
    video, entries = ThreatModel(rgb=THREAT.rgb), [Entry("noted", "noted")]
    told = intervene(model, [_clips(4), _clips(6)], video, entries, **words)
    assert set(asked) == {(words.get("seed", 0), ("rgb",))} and sizes == {4, 6}
    assert told["swapped"] == {} and "contrast" not in told
    assert set(told["weight"]) == set(told["frozen"]) == {"clean", "rgb"}


def test_constant_weights_are_worth_nothing() -> None:
    told = intervene(Chooser(0.0), [_clips()], THREAT, "thin")
    for kind in ("frozen", "shuffled", "swapped"):
        assert all(one["value"] == 0.0 for one in told[kind].values())
    assert told["contrast"]["value"] == 0.0


def test_weights_follow_the_attack_when_swapped() -> None:
    class Suspicious(Chooser):
        """Turns away from whichever stream has moved, as seen on a mark in each."""

        def forward(self, rgb, skeleton, present):
            video, bodies = rgb[:, 0, 0, 0, 1] - 0.5, skeleton[:, 0, 0, 0, 0]
            moved = (bodies.abs() - video.abs()) / 0.01
            weights = self.attention(moved[:, None, None].expand(-1, 2, 1))
            logits = torch.stack([torch.stack([-s, s], 1) for s in (video, bodies)], -1)
            aux = {"rgb": logits[..., 0], "skeleton": logits[..., 1]}
            return ModelOutput((weights[:, None] * logits).sum(-1), aux, {"logits": weights}, {})

    clips = _clips()
    sign = clips.label * 2.0 - 1
    rgb, skeleton = clips.rgb.clone(), clips.skeleton.clone()
    rgb[:, 0, 0, 0, 1], skeleton[:, 0, 0, 0, 0] = 0.5 + 0.2 * sign, 0.2 * sign
    told = intervene(Suspicious(5.0), [clips._replace(rgb=rgb, skeleton=skeleton)], THREAT, "thin")
    contrast = told["contrast"]
    assert 0.5 < abs(contrast["value"]) <= 1  # a difference of two weights
    assert contrast["low"] <= contrast["value"] <= contrast["high"]


def test_what_is_replaced_is_put_back_and_needs_attention() -> None:
    model, clips = Chooser(20.0), _clips()
    with replaced(model, lambda own: torch.full_like(own, 0.5)):
        weights = model(clips.rgb, clips.skeleton, clips.present).weights["logits"]
        assert torch.equal(weights, torch.full_like(weights, 0.5))
    weights = model(clips.rgb, clips.skeleton, clips.present).weights["logits"]
    assert weights.std() > 0.1
    with pytest.raises(UserError, match="no attention"):
        intervene(nn.Linear(1, 1), [clips], THREAT, "thin")
