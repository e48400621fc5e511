"""Figures of the streams' health, from the sums that workers add up."""

import numpy as np
import pytest
import torch

from components.attacks import ATTACKS, CELLS, Budget, ThreatModel
from components.evaluation.metrics import Z95
from components.evaluation.streams import NAMES, exchanged, health, stream_counts
from tests._support.linear import THREAT as BUDGETS
from tests._support.linear import Linear
from tests._support.linear import clips as by_hand


def counts(weights: dict[str, torch.Tensor]) -> dict[str, float]:
    """The sums of a model with modality weights, these of the video, by case."""
    n = len(weights["clean"])
    total = dict.fromkeys(NAMES, 0.0) | {"clips": n, "with_weights": n}
    for case, video in weights.items():
        total[f"{case}/weight"], total[f"{case}/square"] = (
            float(video.sum()),
            float(video.square().sum()),
        )
    contrast = weights["skeleton"] - weights["rgb"]
    total["contrast"], total["contrast_square"] = (
        float(contrast.sum()),
        float(contrast.square().sum()),
    )
    return total


def test_weights_have_the_mean_and_the_spread_of_the_clips():
    draw = torch.Generator().manual_seed(0)
    weights = {
        case: torch.rand(50, generator=draw).double()
        for case in ("clean", "rgb", "skeleton", "both")
    }
    figures = health(counts(weights))
    for case, video in weights.items():
        assert figures[f"weight_{case}"] == pytest.approx(float(video.mean()))
        assert figures[f"weight_std_{case}"] == pytest.approx(float(video.std(correction=0)))
    contrast = weights["skeleton"] - weights["rgb"]
    assert figures["weight_contrast"] == pytest.approx(float(contrast.mean()))
    error = Z95 * float(contrast.std(correction=0)) / 50**0.5
    assert figures["weight_contrast_error"] == pytest.approx(error)


@pytest.mark.parametrize("value", [0.1, 0.3, 0.4, 0.7])
def test_weights_that_are_all_alike_have_no_spread(value):
    """Rounding may leave a variance a little below 0, of which there is no root."""
    alike = torch.full((70,), value, dtype=torch.float32)
    figures = health(counts(dict.fromkeys(("clean", "rgb", "skeleton", "both"), alike)))
    for case in ("clean", "rgb"):
        assert 0 <= figures[f"weight_std_{case}"] < 1e-3
    assert figures["weight_contrast_error"] == 0


THREAT = ThreatModel(rgb=Budget("Linf", 0.02), skeleton=Budget("Linf", 0.05))


def count(model, *batches, threat=THREAT):
    return stream_counts(model, batches, threat, steps=3, seed=0)


def test_sums_of_batches_add_up(honest, clips_maker):
    one, other = clips_maker(12, seed=2), clips_maker(8, seed=3)
    both = count(honest, one, other)
    each = [count(honest, batch) for batch in (one, other)]
    assert both == {name: each[0][name] + each[1][name] for name in NAMES}
    assert both["clips"] == both["with_heads"] == both["with_weights"] == 20


def test_sums_are_what_the_model_says_of_the_clips(honest, clips_maker):
    clips = clips_maker(24, seed=2)
    found = count(honest, clips)
    with torch.no_grad():
        output = honest(clips.rgb, clips.skeleton, clips.present)
    right = {"fused": output.logits, **output.aux}
    for name, logits in right.items():
        assert found[f"clean/{name}"] == float((logits.argmax(1) == clips.label).sum())
    video = output.weights["logits"][:, 0]
    assert found["clean/weight"] == pytest.approx(float(video.sum()))
    assert found["clean/square"] == pytest.approx(float(video.square().sum()))
    # Under attack fewer stand; jointly those alone that each modality's attack leaves.
    assert found["clean/fused"] >= max(found[f"standing/{cell}"] for cell in CELLS)
    assert found["standing/both"] <= min(found["standing/rgb"], found["standing/skeleton"])
    assert found["standing/both"] < found["clean/fused"]
    for name in ("rgb", "skeleton"):
        assert found[f"without/{name}"] < found["clean/fused"]  # the model needs both


def test_contrast_is_the_weight_under_attack_on_the_other_stream(honest, clips_maker):
    clips = clips_maker(24, seed=2)
    found = count(honest, clips)
    expected = found["skeleton/weight"] - found["rgb/weight"]
    assert found["contrast"] == pytest.approx(expected, abs=1e-4)
    assert found["contrast"] ** 2 / 24 <= found["contrast_square"] * (1 + 1e-6)


def test_a_modality_that_is_not_attacked_has_no_cell(honest, clips_maker):
    found = count(honest, clips_maker(12, seed=2), threat=ThreatModel(rgb=THREAT.rgb))
    assert found["rgb/fused"] > 0 and found["contrast"] == 0
    assert found["skeleton/fused"] == found["both/fused"] == found["standing/both"] == 0


def test_clips_are_exchanged_for_those_of_other_classes(clips_maker):
    clips = clips_maker(12, seed=2)
    for name in ("rgb", "skeleton"):
        other = exchanged(clips, name)
        own, kept = ("rgb", "skeleton") if name == "rgb" else ("skeleton", "rgb")
        assert torch.equal(getattr(other, kept), getattr(clips, kept))
        moved = getattr(other, own)
        source = [
            next(j for j in range(12) if torch.equal(moved[i], getattr(clips, own)[j]))
            for i in range(12)
        ]
        assert sorted(source) == list(range(12))
        assert all(clips.label[i] != clips.label[j] for i, j in enumerate(source))
        persons = clips.present if own == "rgb" else clips.present[source]
        assert torch.equal(other.present, persons)


def test_a_large_class_is_exchanged_for_others_as_well(clips_maker):
    """Moving on by the size of a smaller class would leave many of it with their own."""
    clips = clips_maker(12, seed=2)
    label = torch.tensor([0] * 6 + [1, 1, 1, 1, 2, 2])
    other = exchanged(clips._replace(label=label), "rgb")
    source = [
        next(j for j in range(12) if torch.equal(other.rgb[i], clips.rgb[j])) for i in range(12)
    ]
    assert all(label[i] != label[j] for i, j in enumerate(source))


@pytest.mark.parametrize("cells", [("rgb", "skeleton", "both"), ("skeleton",)])
def test_sums_of_the_streams_by_hand(cells, monkeypatch) -> None:
    asked = []

    def moved(model, batch, threat, *, seed, **parameters):
        asked.append((seed, parameters))
        rgb, skeleton = batch.rgb.clone(), batch.skeleton.clone()
        rgb[:, 0, 0, 0, 0] -= 0.05 if threat.rgb else 0
        skeleton[:, 0, 0, 0, 0] -= 0.08 if threat.skeleton else 0
        return batch._replace(rgb=rgb, skeleton=skeleton)

    monkeypatch.setitem(ATTACKS, "margin_pgd", moved)
    video = np.array([0.1, 0.02, -0.1, 0.04, -0.3, 0.2])
    joint = np.array([0.02, 0.1, 0.3, 0.015, -0.13, 0.1])
    some = by_hand(video.tolist(), joint.tolist(), [0, 0, 0, 0, 2, 2])
    threat = BUDGETS if len(cells) == 3 else ThreatModel(skeleton=BUDGETS.skeleton)
    sign = np.array([1, 1, 1, 1, -1, -1])  # label 0 wants a sum above 0, label 2 one below
    found = stream_counts(Linear(), [some, some], threat, steps=7, seed=3)
    assert asked == [(3, {"steps": 7, "n_targets": 0})] * 2 * len(cells)
    wanted = dict.fromkeys(NAMES, 0.0) | dict.fromkeys(("clips", "with_heads", "with_weights"), 6)
    right, weight = {}, {}
    for case in ("clean", *cells):
        v = video - 0.05 * (case in ("rgb", "both"))
        j = joint - 0.08 * (case in ("skeleton", "both"))
        right[case] = sign * (v + j) > 0
        weight[case] = ((v + 0.5) + 0.2 * (v + 1.5)) / 2
        for name, x in (("fused", v + j), ("rgb", v), ("skeleton", j)):
            wanted[f"{case}/{name}"] = np.sum(sign * x > 0)
        wanted[f"{case}/weight"] = weight[case].sum()
        wanted[f"{case}/square"] = (weight[case] ** 2).sum()
        wanted["contrast"] = wanted["contrast_square"] = 0.0
    for cell in cells:
        stands = np.logical_and.reduce([right["clean"], right[cell]])
        if cell == "both":
            stands = np.logical_and.reduce(list(right.values()))
        wanted[f"standing/{cell}"] = stands.sum()
    if len(cells) == 3:
        contrast = weight["skeleton"] - weight["rgb"]
        wanted["contrast"], wanted["contrast_square"] = contrast.sum(), (contrast**2).sum()
    # Sorted by class and moved on by four, the size of the larger one.
    source = [4, 5, 0, 1, 2, 3]
    wanted["without/rgb"] = np.sum(sign * (video[source] + joint) > 0)
    wanted["without/skeleton"] = np.sum(sign * (video + joint[source]) > 0)
    assert found == pytest.approx({name: 2 * value for name, value in wanted.items()}, abs=1e-5)
    figures = health(found, cells)
    assert figures["rgb_reliance"] == (wanted["clean/fused"] - wanted["without/rgb"]) / 6
    assert figures[f"rgb_acc_{cells[0]}"] == wanted[f"{cells[0]}/rgb"] / 6
    assert figures["weight_std_clean"] == pytest.approx(weight["clean"].std(), abs=1e-4)
    names = {"rgb_reliance", "skeleton_reliance", "weight_contrast", "weight_contrast_error"}
    names |= {f"{m}_acc_{c}" for m in ("rgb", "skeleton") for c in ("clean", *cells)}
    assert set(figures) == names | {f"{w}_{c}" for w in ("weight", "weight_std") for c in
                                    ("clean", *cells)}  # fmt: skip
    silent = dict.fromkeys(NAMES, 0.0) | {"clips": 4, "clean/fused": 3}
    assert health(silent) == {"rgb_reliance": 0.75, "skeleton_reliance": 0.75}
