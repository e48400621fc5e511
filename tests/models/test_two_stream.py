"""The whole model: what its output holds, what never reaches it, and how parts are chosen."""

from collections.abc import Callable

import pytest
import torch

from components.config import to_dict
from components.config.model import ModelSection
from components.models import build_model, two_stream
from components.models.build import FUSIONS, SKELETON, VIDEO, resolve_joins

SMALL = {"num_classes": 5, "width": 0.25, "skeleton_frames": 16}
STAGED = {"stage_weights": True}  # both places of AMR; by default the second is alone


def test_every_setting_builds_and_the_defaults_agree() -> None:
    section = to_dict(ModelSection())
    torch.manual_seed(0)
    named = build_model({**section, "num_classes": 7})
    torch.manual_seed(0)
    flat = two_stream(num_classes=7)
    assert repr(named) == repr(flat)
    for a, b in zip(named.parameters(), flat.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("rgb", VIDEO)
@pytest.mark.parametrize("skeleton", SKELETON)
def test_amr_joins_any_pair_of_backbones_at_several_stages(
    rgb: str, skeleton: str, inputs: Callable
) -> None:
    torch.manual_seed(0)
    model = two_stream(
        rgb=rgb, skeleton=skeleton, num_classes=5, width=0.125, skeleton_frames=16,
        fusion_stages=[[1, -2], -1], dropout=0.0, amr=STAGED,
    )  # fmt: skip
    model.eval()
    data = inputs()
    out = model(*data)
    assert out.logits.shape == (3, 5) and torch.isfinite(out.logits).all()
    assert set(out.weights) == {"stage2", "stage4", "logits"}
    assert set(out.aux) == {"rgb", "skeleton"}
    for weight in out.weights.values():
        assert torch.equal(weight, torch.full_like(weight, 0.5))
    # At the start nothing is scaled: the prediction is that of late fusion with the same weights.
    late = two_stream(
        rgb=rgb, skeleton=skeleton, num_classes=5, width=0.125, skeleton_frames=16,
        fusion="late", time_parts=2, dropout=0.0,
    )  # fmt: skip
    late.load_state_dict(model.state_dict(), strict=False)
    late.heads = model.heads
    late.eval()
    expected = late(*data).logits.softmax(1)
    assert torch.allclose(out.logits.softmax(1), expected, atol=1e-4)


@pytest.mark.parametrize("fusion", ["mmtm", "fim"])
def test_fusions_between_stages_take_maps_whose_persons_are_merged(
    fusion: str, inputs: Callable
) -> None:
    torch.manual_seed(0)
    model = two_stream(skeleton="hcn", fusion=fusion, fusion_stages=[-3, -2, -1], **SMALL).eval()
    rgb, skeleton, present = inputs(3)
    out = model(rgb, skeleton, present)
    alone = model(rgb[:1], skeleton[:1], present[:1])  # one place for persons, not two
    assert torch.allclose(out.logits[:1], alone.logits, atol=1e-5)
    present[0] = False  # nobody at all: still the same in any company
    empty = model(rgb, skeleton, present).logits[:1]
    assert torch.allclose(empty, model(rgb[:1], skeleton[:1], present[:1]).logits, atol=1e-5)
    out.logits.sum().backward()
    assert all(p.grad is not None for p in model.fusions.parameters())


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("aux", [True, False])
def test_every_fusion_trains_all_its_parameters(fusion: str, aux: bool, inputs: Callable) -> None:
    torch.manual_seed(0)
    model = two_stream(fusion=fusion, aux_heads=aux, amr=STAGED, **SMALL).train()
    out = model(*inputs(4))
    assert set(out.aux) == ({"rgb", "skeleton"} if aux else set())
    loss = torch.nn.functional.cross_entropy(out.logits, torch.arange(4))
    loss = loss + sum(a.square().mean() for a in out.aux.values()) + model.regulariser(out)
    loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert not without
    assert model.regulariser(out).shape == ()
    penalised = "minsim" in fusion or "exfmem" in fusion or (fusion == "amr" and aux)
    assert (model.regulariser(out) != 0) == penalised


@pytest.mark.parametrize("fusion", FUSIONS)
def test_absent_persons_do_not_matter(fusion: str, inputs: Callable) -> None:
    torch.manual_seed(0)
    model = two_stream(fusion=fusion, **SMALL).eval()
    rgb, skeleton, present = inputs(3)
    absent = ~present[:, None, :, None, :].expand_as(skeleton)
    poisoned = skeleton.masked_fill(absent, float("nan")).requires_grad_()
    out = model(rgb, poisoned, present)
    assert torch.equal(out.logits, model(rgb, skeleton, present).logits)
    (gradient,) = torch.autograd.grad(out.logits.square().sum(), poisoned)
    assert not gradient[absent].any() and gradient[~absent].any()
    # A clip of its own, with the empty place left out of the computation, gives the same.
    alone = model(rgb[:1], skeleton[:1], present[:1]).logits
    assert torch.allclose(alone, out.logits[:1], atol=1e-5)
    nobody = model(rgb, skeleton, torch.zeros_like(present)).logits
    assert torch.isfinite(nobody).all()


def test_a_person_may_stand_in_either_place(inputs: Callable) -> None:
    torch.manual_seed(0)
    model = two_stream(**SMALL).eval()
    rgb, skeleton, present = inputs(1)  # the only person is in place 0
    a = model(rgb, skeleton, present).logits
    b = model(rgb, skeleton.flip(-1), present.flip(-1)).logits
    assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_telemetry_is_that_of_the_same_pass_and_changes_nothing(
    fusion: str, inputs: Callable
) -> None:
    torch.manual_seed(0)
    model = two_stream(fusion=fusion, **SMALL).eval()
    data = inputs()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    first, second = model(*data), model(*data)
    assert torch.equal(first.logits, second.logits)
    for weight in first.weights.values():
        assert weight.shape[0] == 3 and weight.shape[-1] == 2
        assert torch.allclose(weight.sum(-1), torch.ones(()))
    assert bool(first.weights) == (fusion == "amr")
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("fusion", FUSIONS)
def test_any_fusion_can_have_parts_of_time(fusion: str, inputs: Callable) -> None:
    own = two_stream(fusion=fusion, **SMALL)
    assert own.time_parts == (2 if fusion == "amr" else 1)
    out = two_stream(fusion=fusion, time_parts=3, **SMALL).eval()(*inputs())
    assert out.logits.shape == (3, 5) and torch.isfinite(out.logits).all()


def test_parts_of_time_tell_the_order() -> None:
    model = two_stream(**SMALL)
    torch.manual_seed(0)
    video, bodies = torch.randn(3, 4, 6, 5, 5), torch.randn(3, 4, 2, 6, 5)
    real = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    for pool, map_, time in (
        (model.rgb.pool, (video,), 2),
        (model.skeleton.pool, (bodies, real), 3),
    ):
        whole, halves = pool(*map_), pool(*map_, 2)
        back = pool(map_[0].flip(time), *map_[1:], 2)
        assert torch.allclose(whole, halves.unflatten(1, (2, -1)).mean(1), atol=1e-6)
        assert torch.allclose(back, halves.roll(4, 1), atol=1e-6)
        # Three frames in two parts share the middle; one frame is both parts.
        three = pool(map_[0].narrow(time, 0, 3), *map_[1:], 2)
        for half, start in zip(three.split(4, 1), (0, 1), strict=True):
            assert torch.allclose(half, pool(map_[0].narrow(time, start, 2), *map_[1:]), atol=1e-6)
        one = pool(map_[0].narrow(time, 0, 1), *map_[1:], 2)
        assert torch.equal(one[:, :4], one[:, 4:])


def test_parts_of_time_are_not_a_setting_of_amr_alone() -> None:
    with pytest.raises(TypeError, match="time_parts"):
        two_stream(amr={"time_parts": 3}, **SMALL)


def test_fusion_stages_are_python_indices_or_pairs() -> None:
    assert resolve_joins((-2, -1), 4, 3) == [(2, 1), (3, 2)]
    assert resolve_joins((-1, (0, 0)), 4, 3) == [(0, 0), (3, 2)]
    with pytest.raises(ValueError, match="outside the 3 skeleton stages"):
        resolve_joins((3,), 4, 3)
    with pytest.raises(ValueError, match="neither a stage nor a pair"):
        resolve_joins(((1, 2, 3),), 4, 3)
    with pytest.raises(ValueError, match="both must grow"):
        two_stream(num_classes=3, fusion_stages=[[1, 2], [2, 1]], amr=STAGED)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rgb": "resnet"}, "model.rgb='resnet'; there are: small_video"),
        ({"skeleton": "gcn"}, "model.skeleton='gcn'"),
        ({"fusion": "sum"}, "model.fusion='sum'"),
        ({"num_classes": 1}, "num_classes=1"),
        ({"time_parts": -1}, "model.time_parts=-1"),
        ({"centre": "hip"}, "model.centre='hip'"),
        ({"amr": {"heads": 5, **STAGED}}, "heads=5"),
        ({"amr": {"logits": "max"}}, "model.amr.logits='max'"),
        ({"amr": {"evidence": "x"}}, "model.amr.evidence='x'"),
        ({"amr": {"logits": "mean", "stage_weights": False, "balance": 1.0}}, "balance"),
    ],
)
def test_wrong_settings_say_what_to_change(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        two_stream(**{"num_classes": 3, **wrong})
    assert message in str(caught.value)


def test_amr_parts_can_be_left_out(inputs: Callable) -> None:
    data = inputs()
    bare = two_stream(
        amr={"stage_weights": False, "logits": "mean", "prototype_scale": 0.0}, **SMALL
    ).eval()
    late = two_stream(fusion="late", time_parts=2, **SMALL).eval()
    late.load_state_dict(bare.state_dict())  # strict: nothing of AMR is left
    assert torch.equal(bare(*data).logits, late(*data).logits)
    only = two_stream(**SMALL).eval()(*data)
    assert set(only.weights) == {"logits"}
    classes = two_stream(amr={"per_class": True}, **SMALL).eval()(*data)
    assert classes.weights["logits"].shape == (3, 5, 2)
