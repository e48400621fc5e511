"""The heads of AMR: bounded, independent of length, and compared with shared prototypes."""

import pytest
import torch

from components.models import two_stream
from components.models.heads import PrototypeHeads


def features(rgb: int = 6, skeleton: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "rgb": torch.randn((4, rgb), generator=generator),
        "skeleton": torch.randn((4, skeleton), generator=generator),
    }


def test_length_does_not_count_and_logits_are_bounded() -> None:
    heads = PrototypeHeads(6, 6, 5, scale=12.0)
    short, long = features(), {name: 1000.0 * f for name, f in features().items()}
    for name, logits in heads(short).items():
        assert logits.shape == (4, 5) and logits.abs().max() <= 12.0
        assert torch.allclose(logits, heads(long)[name], atol=1e-4)


def test_both_modalities_answer_to_the_same_prototypes() -> None:
    heads = PrototypeHeads(6, 6, 5, scale=12.0)
    same = features()["rgb"]
    logits = heads({"rgb": same, "skeleton": same})
    assert torch.equal(logits["rgb"], logits["skeleton"])
    # A prototype itself is its own class, to the full scale.
    own = heads({"rgb": heads.prototypes.detach()})["rgb"]
    assert torch.allclose(own.diagonal(), torch.full((5,), 12.0))


def test_features_of_unequal_length_meet_in_the_shorter_one() -> None:
    heads = PrototypeHeads(10, 6, 5, scale=12.0)
    assert heads.prototypes.shape == (5, 6) and set(heads.project) == {"rgb"}
    assert {name: x.shape for name, x in heads(features(10, 6)).items()} == {
        "rgb": (4, 5),
        "skeleton": (4, 5),
    }


def test_parts_of_time_have_a_direction_each_and_are_shortened_alike() -> None:
    heads = PrototypeHeads(20, 12, 5, scale=12.0, parts=2)
    assert heads.prototypes.shape == (5, 12)
    assert heads.project["rgb"].weight.shape == (6, 10)
    first = features(10, 6)
    second = {name: feature.flip(0) for name, feature in first.items()}

    def logits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], loud: float = 1.0):
        return heads({name: torch.cat([one[name], loud * other[name]], 1) for name in one})

    bare = PrototypeHeads(6, 6, 5, scale=12.0, parts=2)
    forth, back, louder = logits(first, second), logits(second, first), logits(first, second, 9.0)
    for name in ("rgb", "skeleton"):
        assert forth[name].abs().max() <= 12.0
        assert not torch.allclose(forth[name], back[name], atol=0.1)  # the order counts
    # The length of a part does not; the skeleton's parts reach the cosine as they are.
    assert torch.allclose(forth["skeleton"], louder["skeleton"], atol=1e-4)
    own = bare({"rgb": bare.prototypes.detach()})["rgb"]
    assert torch.allclose(own.diagonal(), torch.full((5,), 12.0), atol=1e-5)


def test_a_feature_of_zeros_has_finite_logits_and_gradients() -> None:
    nothing = torch.zeros((2, 6), requires_grad=True)
    PrototypeHeads(6, 6, 5, scale=12.0)({"rgb": nothing})["rgb"].sum().backward()
    assert torch.isfinite(nothing.grad).all()


def test_amr_has_no_dropout_before_its_heads() -> None:
    small = {"num_classes": 4, "width": 0.25, "skeleton_frames": 8, "dropout": 0.3}
    assert two_stream(**small).dropout.p == 0.0
    assert two_stream(fusion="late", **small).dropout.p == 0.3


def test_scale_zero_is_linear_heads_and_below_is_refused() -> None:
    small = {"num_classes": 4, "width": 0.25, "skeleton_frames": 8}
    linear = two_stream(fusion_settings={"prototype_scale": 0.0}, **small)
    assert "heads.rgb.weight" in linear.state_dict()
    ours = two_stream(**small)
    assert ours.heads.parts == ours.time_parts == 2 and ours.heads.scale == 12.0
    assert two_stream(time_parts=3, **small).heads.parts == 3
    with pytest.raises(ValueError, match="prototype_scale=-1"):
        two_stream(fusion_settings={"prototype_scale": -1.0}, **small)
