"""Figures of the streams' health, from the sums that workers add up."""

import pytest
import torch

from components.attacks import CELLS, Budget, ThreatModel
from components.evaluation.metrics import Z95
from components.evaluation.streams import NAMES, exchanged, health, stream_counts


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
