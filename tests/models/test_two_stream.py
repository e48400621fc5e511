"""The whole model: what its output holds, what never reaches it, and how modules are chosen."""

from collections.abc import Callable

import pytest
import torch

from components.config import to_dict
from components.config.model import ModelSection
from components.errors import UserError
from components.models import build_model, two_stream
from components.models.backbones import SKELETON_BACKBONES, VIDEO_BACKBONES
from components.models.build import check_names
from components.models.fusions import FUSIONS
from components.models.fusions.fusion import resolve_joins

SMALL = {"num_classes": 5, "width": 0.25, "skeleton_frames": 16}


def test_every_setting_builds_and_the_defaults_agree() -> None:
    section = to_dict(ModelSection())
    torch.manual_seed(0)
    named = build_model({**section, "num_classes": 7})
    torch.manual_seed(0)
    flat = two_stream(num_classes=7)
    assert repr(named) == repr(flat)
    for a, b in zip(named.parameters(), flat.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("rgb", VIDEO_BACKBONES)
@pytest.mark.parametrize("skeleton", SKELETON_BACKBONES)
def test_amr_joins_any_pair_of_backbones(rgb: str, skeleton: str, inputs: Callable) -> None:
    torch.manual_seed(0)
    model = two_stream(
        rgb=rgb, skeleton=skeleton, num_classes=5, width=0.125, skeleton_frames=16,
    )  # fmt: skip
    model.eval()
    data = inputs()
    out = model(*data)
    assert out.logits.shape == (3, 5) and torch.isfinite(out.logits).all()
    assert set(out.weights) == {"logits"}
    assert set(out.aux) == {"rgb", "skeleton"}
    for weight in out.weights.values():
        assert torch.equal(weight, torch.full_like(weight, 0.5))
    # At the start both weigh the same: the prediction is that of late fusion.
    late = two_stream(
        rgb=rgb, skeleton=skeleton, num_classes=5, width=0.125, skeleton_frames=16,
        fusion="late", time_parts=2, dropout=0.0,
    )  # fmt: skip
    late.load_state_dict(model.state_dict(), strict=False)
    late.heads = model.heads
    late.eval()
    expected = late(*data).logits.softmax(1)
    assert torch.allclose(out.logits.softmax(1), expected, atol=1e-4)


ALONE = {"rgb_alone": "skeleton", "skeleton_alone": "rgb"}  # and the stream that has no say


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
    assert all(p.grad is not None for p in model.between.parameters())


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("aux", [True, False])
def test_every_fusion_trains_all_its_parameters(fusion: str, aux: bool, inputs: Callable) -> None:
    torch.manual_seed(0)
    model = two_stream(fusion=fusion, aux_heads=aux, **SMALL).train()
    out = model(*inputs(4))
    assert set(out.aux) == ({"rgb", "skeleton"} if aux else set())
    loss = torch.nn.functional.cross_entropy(out.logits, torch.arange(4))
    loss = loss + sum(a.square().mean() for a in out.aux.values()) + model.regulariser(out)
    loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    if fusion in ALONE and not aux:  # the other stream has no say, and no loss of its own
        other = ALONE[fusion]
        assert {name.split(".")[0] for name in without} == {other, "heads"}
        without = [n for n in without if not n.startswith((f"{other}.", f"heads.{other}."))]
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
    if fusion != "rgb_alone":
        (gradient,) = torch.autograd.grad(out.logits.square().sum(), poisoned)
        assert not gradient[absent].any() and gradient[~absent].any()
    # A clip of its own, with the empty place left out of the computation, gives the same.
    alone = model(rgb[:1], skeleton[:1], present[:1]).logits
    assert torch.allclose(alone, out.logits[:1], atol=1e-5)
    nobody = model(rgb, skeleton, torch.zeros_like(present)).logits
    assert torch.isfinite(nobody).all()


def test_places_that_nobody_fills_cost_nothing(inputs: Callable) -> None:
    rgb, skeleton, present = inputs()
    present[:, :, 1] = False
    model = two_stream(**SMALL).eval()
    seen = []
    model.skeleton.stages[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    model(rgb, skeleton, present)
    assert seen[0][2] == 1  # [B, C, M, S, V]
    present[0, 3, 1] = True  # a second person in one frame of one clip
    model(rgb, skeleton, present)
    assert seen[1][2] == 2


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


def test_fusion_stages_are_python_indices_or_pairs() -> None:
    assert resolve_joins((-2, -1), 4, 3) == [(2, 1), (3, 2)]
    assert resolve_joins((-1, (0, 0)), 4, 3) == [(0, 0), (3, 2)]
    with pytest.raises(ValueError, match="outside the 3 skeleton stages"):
        resolve_joins((3,), 4, 3)
    with pytest.raises(ValueError, match="neither a stage nor a pair"):
        resolve_joins(((1, 2, 3),), 4, 3)
    with pytest.raises(ValueError, match="both must grow"):
        two_stream(num_classes=3, fusion="mmtm", fusion_stages=[[1, 2], [2, 1]])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rgb": "r3d18"}, "model.rgb='r3d18' does not exist; did you mean 'r3d_18'?"),
        ({"skeleton": "gcn"}, "model.skeleton='gcn' does not exist; did you mean 'stgcn'?"),
        ({"fusion": "sum"}, "(there are: late, concat,"),
        ({"num_classes": 1}, "num_classes=1"),
        ({"time_parts": -1}, "model.time_parts=-1"),
        ({"centre": "hip"}, "centre='hip'"),
        ({"skeleton": "hcn", "skeleton_frames": 20}, "model.skeleton_frames=20"),
        ({"fusion_settings": {"weights": "max"}}, "model.amr.weights='max'"),
        (
            {"fusion_settings": {"weight": 1}},
            "model.amr.weight is no setting; did you mean 'weights'?",
        ),
        ({"fusion_settings": {"prototype_scale": -1}}, "model.amr.prototype_scale=-1"),
        ({"fusion": "late", "fusion_settings": {"distil": 1}}, "model.late.distil is no setting"),
    ],
)
def test_wrong_settings_say_what_to_change(wrong: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        two_stream(**{"num_classes": 3, **wrong})
    assert message in str(caught.value)


def test_a_section_is_checked_by_name_and_holds_the_settings_of_any_fusion() -> None:
    section = {"num_classes": 3, "fusion": "late", "amr": {"distil": 0.1}, "rgb_frames": 8}
    assert build_model(section).time_parts == 1
    with pytest.raises(UserError, match=r"model\.widht is no setting; did you mean 'width'"):
        build_model({**section, "widht": 2.0})
    with pytest.raises(UserError, match=r"model\.amr\.heads is no setting"):
        build_model({**section, "fusion": "amr", "amr": {"heads": 4}})
    check_names({"rgb": "r3d_18", "skeleton": "hcn", "fusion": "fim", "width": "not looked at"})
    with pytest.raises(UserError, match="did you mean 'mmtm'"):
        check_names({"fusion": "mtmm"})


def test_amr_without_attention_and_prototypes_is_late_fusion(inputs: Callable) -> None:
    data = inputs()
    own = {"weights": "mean", "prototype_scale": 0.0}
    bare = two_stream(fusion_settings=own, **SMALL).eval()
    late = two_stream(fusion="late", time_parts=2, **SMALL).eval()
    late.load_state_dict(bare.state_dict())  # strict: nothing of AMR is left
    output = bare(*data)
    assert torch.equal(output.logits, late(*data).logits) and not output.weights
