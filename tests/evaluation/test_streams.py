"""Figures of the streams' health, from the sums that workers add up."""

import pytest
import torch

from components.evaluation.metrics import Z95
from components.evaluation.streams import NAMES, health


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
