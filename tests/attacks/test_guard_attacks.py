"""Attacks do what they say: each test fails on one small break that once went unseen."""

import pytest
import torch

from components.attacks import ADAPTIVE, Budget, ThreatModel, pgd
from components.batch import ModelOutput

THREAT = ThreatModel(Budget("Linf", 8 / 255), Budget("Linf", 0.05))


@pytest.fixture(scope="module")
def clips(make_model, make_batch):
    return make_batch(make_model(), size=4)


class Recorder:
    """A model that keeps every input it is asked about, and answers with a plane over them."""

    def __init__(self) -> None:
        self.rgb: list[torch.Tensor] = []
        self.skeleton: list[torch.Tensor] = []

    def __call__(self, rgb, skeleton, present):
        self.rgb.append(rgb.detach().clone())
        self.skeleton.append(skeleton.detach().clone())
        plane = rgb.mean((1, 2, 3, 4)) + skeleton.mean((1, 2, 3, 4))
        return torch.stack([plane, -plane], 1)


def test_every_restart_begins_at_another_point(clips) -> None:
    model = Recorder()
    clips = clips._replace(label=torch.zeros_like(clips.label))
    pgd(model, clips, THREAT, seed=0, steps=1, n_restarts=3, keep="best")
    for starts in (model.rgb, model.skeleton):
        assert len(starts) == 3
        for i in range(clips.size):
            assert not torch.equal(starts[0][i], starts[1][i])
            assert not torch.equal(starts[0][i], starts[2][i])
            assert not torch.equal(starts[1][i], starts[2][i])


def test_cross_climbs_the_other_modality_s_head(clips) -> None:
    """Each head falls when its own input sinks, and when the other's rises; the fusion is flat."""
    label = torch.zeros_like(clips.label)
    whole = clips._replace(label=label, present=torch.ones_like(clips.present))

    def model(rgb, skeleton, present):
        video, joints = rgb.mean((1, 2, 3, 4)), skeleton.mean((1, 2, 3, 4))
        aux = {}
        for name, height in (("rgb", video - 5 * joints), ("skeleton", joints - 5 * video)):
            aux[name] = torch.stack([height, -height], 1)
        flat = torch.zeros_like(video)
        return ModelOutput(torch.stack([flat + 1, flat], 1), aux, {}, {})

    inner = whole._replace(rgb=whole.rgb.clamp(0.1, 0.9))
    found = ADAPTIVE["cross"](model, inner, THREAT, seed=0, steps=40)
    # Up, which lowers the other's head; for its own head's sake each would go down. Half of the
    # steps carry a random start from the lowest corner over the middle, and no further.
    assert (found.rgb > inner.rgb).all() and (found.skeleton > inner.skeleton).all()
    assert found.rgb.max() <= 1 and (found.skeleton - inner.skeleton).max() > 0.049
