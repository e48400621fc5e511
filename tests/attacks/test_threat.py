"""The threat model: whatever goes in, what comes out lies in budget, mask, bounds and motion."""

import dataclasses
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.attacks import Budget, ThreatModel, acceleration_change, bone_change
from components.batch import BONES, JOINTS, Batch
from components.errors import UserError
from components.seeds import clip_seeds

RGB, SKELETON = Budget("Linf", 8 / 255), Budget("Linf", 0.05)
BOTH = ThreatModel(rgb=RGB, skeleton=SKELETON)


def clips(seed: int = 0, size: int = 3, frames: int = 6) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    present = torch.rand(size, frames, 2, generator=draw) < 0.7
    skeleton = torch.randn(size, 3, frames, 25, 2, generator=draw) * 2
    return Batch(
        torch.rand(size, 3, 4, 5, 6, generator=draw),
        skeleton * present[:, None, :, None, :],
        present,
        torch.zeros(size, dtype=torch.int64),
        tuple(f"c{i}" for i in range(size)),
    )


def thrown(batch: Batch, seed: int, size: float) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    rgb = batch.rgb + size * torch.randn(batch.rgb.shape, generator=draw)
    return rgb, batch.skeleton + size * torch.randn(batch.skeleton.shape, generator=draw)


def projected(threat: ThreatModel, batch: Batch, seed: int, size: float) -> Batch:
    rgb, skeleton = threat.project(batch, *thrown(batch, seed, size))
    return batch._replace(rgb=rgb, skeleton=skeleton)


budgets = st.builds(
    Budget,
    norm=st.sampled_from(["Linf", "L2"]),
    eps=st.floats(0, 1, allow_nan=False),
    frames=st.sampled_from([None, 1, 3]),
)
threats = st.builds(
    ThreatModel,
    rgb=st.none() | budgets,
    skeleton=st.none() | budgets,
    bone_length=st.sampled_from([None, 0.02, 0.3]),
    acceleration=st.sampled_from([None, 0.01, 0.5]),
)


@settings(max_examples=60, deadline=None)
@given(threat=threats, seed=st.integers(0, 1000), size=st.sampled_from([1e-4, 0.1, 10.0, 1e6]))
def test_nothing_leaves_the_threat(threat, seed, size):
    batch = clips(seed)
    adv = projected(threat, batch, seed, size)
    threat.check(batch, adv)
    again = threat.project(batch, adv.rgb, adv.skeleton)
    assert (again[0] - adv.rgb).abs().max() <= 1e-6
    if threat.bone_length is None and threat.acceleration is None:
        assert (again[1] - adv.skeleton).abs().max() <= 2e-6


@settings(max_examples=40, deadline=None)
@given(eps=st.floats(1e-6, 1), seed=st.integers(0, 1000))
def test_linf_holds_without_any_slack(eps, seed):
    batch = clips(seed)
    adv = projected(ThreatModel(Budget("Linf", eps), Budget("Linf", eps)), batch, seed, 9.0)
    assert (adv.rgb - batch.rgb).abs().max().item() <= eps
    assert (adv.skeleton - batch.skeleton).abs().max().item() <= eps


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_projection_uses_the_whole_budget(norm):
    batch = clips()
    threat = ThreatModel(Budget(norm, 0.3, -9, 9), Budget(norm, 0.3))
    for size in threat.sizes(batch, projected(threat, batch, 0, 5.0)).values():
        assert torch.allclose(size, torch.full_like(size, 0.3), rtol=1e-5)


def test_what_is_inside_stays_as_it_is():
    batch = clips()
    rgb = (batch.rgb + 0.01).clamp(0, 1)
    skeleton = batch.skeleton + 0.04 * batch.present[:, None, :, None, :]
    out = BOTH.project(batch, rgb, skeleton)
    assert torch.equal(out[0], rgb) and torch.equal(out[1], skeleton)


def test_absent_persons_and_untouched_modalities_stay_bit_equal():
    batch = clips()
    adv = projected(BOTH.cell("skeleton"), batch, 3, 1.0)
    assert adv.rgb is batch.rgb
    absent = ~batch.present[:, None, :, None, :].expand_as(batch.skeleton)
    assert absent.any() and torch.equal(adv.skeleton[absent], batch.skeleton[absent])
    assert (adv.skeleton != batch.skeleton)[~absent].float().mean() > 0.99


def test_nan_and_infinity_become_the_clean_value_or_the_edge():
    batch = clips()
    rgb, skeleton = batch.rgb.clone(), batch.skeleton.clone()
    rgb[0, 0, 0, 0, 0] = torch.nan
    skeleton[0, :, :, :, :] = torch.inf
    for norm in ("Linf", "L2"):
        threat = ThreatModel(Budget(norm, 0.1), Budget(norm, 0.1))
        out = threat.project(batch, rgb, skeleton)
        assert out[0][0, 0, 0, 0, 0] == batch.rgb[0, 0, 0, 0, 0]
        threat.check(batch, batch._replace(rgb=out[0], skeleton=out[1]))


def test_a_clean_value_outside_the_bounds_is_no_violation():
    batch = clips()
    batch.rgb[0, 0, 0, 0, 0] = 1.4
    adv = projected(BOTH, batch, 0, 0.0)
    assert torch.equal(adv.rgb, batch.rgb)
    BOTH.check(batch, adv)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_random_start_is_inside_spread_out_and_per_clip(norm):
    batch = clips()
    threat = ThreatModel(Budget(norm, 0.2), Budget(norm, 0.2))
    seeds = {m: clip_seeds(0, batch.clip_id, m) for m in ("rgb", "skeleton")}
    rgb, skeleton = threat.random_start(batch, seeds)
    threat.check(batch, batch._replace(rgb=rgb, skeleton=skeleton))
    assert all(
        s.min() > 0.19 for s in threat.sizes(batch, Batch(rgb, skeleton, *batch[2:])).values()
    )
    alone = batch.select(torch.tensor([2]))
    own = threat.random_start(alone, {m: s[2:] for m, s in seeds.items()})
    assert torch.allclose(own[0][0], rgb[2], atol=1e-7)
    assert torch.allclose(own[1][0], skeleton[2], atol=1e-6)


def test_linf_start_fills_the_ball_evenly():
    batch = clips(size=8)._replace(rgb=torch.full((8, 3, 4, 5, 6), 0.5))
    rgb, _ = BOTH.random_start(
        batch, dict.fromkeys(("rgb", "skeleton"), clip_seeds(0, "abcdefgh", "x"))
    )
    share = (rgb - 0.5) / RGB.eps
    assert share.mean().abs() < 0.06
    assert abs(share.std().item() - 3**-0.5) < 0.03


def moved(batch: Batch, **changes: torch.Tensor) -> Batch:
    return batch._replace(**changes)


@pytest.mark.parametrize(
    ("threat", "change", "words"),
    [
        (BOTH, lambda b: moved(b, rgb=b.rgb * 0.5), "rgb left its b"),
        (BOTH, lambda b: moved(b, skeleton=b.skeleton * 1.5), "skeleton left its b"),
        (BOTH, lambda b: moved(b, skeleton=b.skeleton + 0.01), "skeleton"),
        (BOTH, lambda b: moved(b, rgb=b.rgb * torch.nan), "NaN"),
        (BOTH.cell("rgb"), lambda b: moved(b, skeleton=b.skeleton + 0.01), "forbids"),
        (BOTH, lambda b: moved(b, label=b.label + 1), "same labels"),
        (
            ThreatModel(dataclasses.replace(RGB, frames=2)),
            lambda b: moved(b, rgb=b.rgb * 0.99),
            "more than 2 frames",
        ),
        (
            ThreatModel(Budget("L2", 0.1)),
            lambda b: moved(b, rgb=b.rgb * 0.9),
            "left its budget of 0.1",
        ),
        (
            ThreatModel(skeleton=Budget("Linf", 9.0), bone_length=0.1),
            lambda b: moved(b, skeleton=b.skeleton * 1.2),
            "bone",
        ),
        (
            ThreatModel(skeleton=Budget("Linf", 9.0), acceleration=0.001),
            lambda b: moved(b, skeleton=b.skeleton * 1.2),
            "acceleration",
        ),
    ],
)
def test_check_names_the_violation(threat, change, words):
    batch = clips()
    with pytest.raises(ValueError, match=words):
        threat.check(batch, change(batch))


def test_motion_bounds_leave_room_for_an_attack():
    """Position-based corrections keep far more of a perturbation than plain shrinking would."""
    draw = torch.Generator().manual_seed(0)
    still = torch.randn(2, 3, 1, 25, 2, generator=draw) * 0.4
    batch = clips(size=2, frames=16)._replace(
        skeleton=still.expand(-1, -1, 16, -1, -1).contiguous(),
        present=torch.ones(2, 16, 2, dtype=torch.bool),
    )
    threat = ThreatModel(skeleton=SKELETON, bone_length=0.05, acceleration=0.02)
    free = projected(ThreatModel(skeleton=SKELETON), batch, 1, 1.0)
    held = projected(threat, batch, 1, 1.0)
    before = acceleration_change(batch.skeleton, free.skeleton, batch.present)
    after = acceleration_change(batch.skeleton, held.skeleton, batch.present)
    assert (bone_change(batch.skeleton, held.skeleton, batch.present) <= 0.05).all()
    assert (after <= 0.02).all()
    kept = (held.skeleton - batch.skeleton).flatten(1).norm(dim=1)
    shrunk = (free.skeleton - batch.skeleton).flatten(1).norm(dim=1) * 0.02 / before
    assert (kept > 1.5 * shrunk).all()


def test_three_frames_have_an_acceleration():
    batch = clips(size=2, frames=3)
    batch = batch._replace(present=torch.ones(2, 3, 2, dtype=torch.bool))
    threat = ThreatModel(skeleton=SKELETON, acceleration=0.02)
    free = projected(ThreatModel(skeleton=SKELETON), batch, 1, 1.0)
    held = projected(threat, batch, 1, 1.0)
    before, after = (
        acceleration_change(batch.skeleton, x.skeleton, batch.present) for x in (free, held)
    )
    assert (before > 0.02).all() and (after <= 0.02).all()
    kept, moved = ((x.skeleton - batch.skeleton).flatten(1).norm(dim=1) for x in (held, free))
    # Smoothing keeps more than shrinking everything to the bound.
    assert (kept > 1.5 * moved * 0.02 / before).all()


def test_bones_form_one_tree_over_all_joints():
    reached = {0}
    for _ in BONES:
        reached |= {j for bone in BONES if set(bone) & reached for j in bone}
    assert reached == set(range(JOINTS)) and len(BONES) == JOINTS - 1


def test_cells_scaling_and_fingerprint():
    assert BOTH.cell("rgb").skeleton is None and BOTH.cell("skeleton").rgb is None
    assert BOTH.cell("both") == BOTH
    assert BOTH.scaled(rgb=2, skeleton=0.5).rgb.eps == 16 / 255
    assert BOTH.scaled(skeleton=0.5).skeleton.eps == 0.025
    assert BOTH.rgb.low == 0.0 and BOTH.rgb.high == 1.0 and BOTH.skeleton.high is None
    assert json.loads(json.dumps(BOTH.as_dict())) == BOTH.as_dict()
    assert BOTH.fingerprint() == ThreatModel(rgb=RGB, skeleton=SKELETON).fingerprint()
    assert BOTH.fingerprint() != BOTH.scaled(rgb=2).fingerprint()
    assert BOTH.fingerprint() == "2128536223784617"


def test_settings_say_zero_for_no_bound():
    plain = {"norm": "Linf", "eps": 0.05, "frames": 0}
    assert ThreatModel.from_settings({"rgb": None, "skeleton": plain}) == BOTH.cell("skeleton")
    held = ThreatModel.from_settings(
        {"rgb": {**plain, "frames": 2}, "skeleton": plain, "bone_length": 0.1, "acceleration": 0.0}
    )
    assert held.rgb.frames == 2 and held.bone_length == 0.1 and held.acceleration is None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Budget("L1", 0.1), "'Linf' or 'L2'"),
        (lambda: Budget("Linf", -1), "not negative"),
        (lambda: Budget("Linf", float("nan")), "finite"),
        (lambda: Budget("Linf", 0.1, 1.0, 0.0), "low < high"),
        (lambda: Budget("Linf", 0.1, frames=0), "at least 1"),
        (lambda: ThreatModel(bone_length=0.0), "bone_length must be positive"),
        (lambda: BOTH.cell("audio"), "rgb, skeleton, both"),
        (lambda: ThreatModel(rgb=RGB).cell("both"), "budget for skeleton"),
    ],
)
def test_errors_say_what_to_mend(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_the_clip_that_breaks_a_bound_is_the_one_named():
    batch = clips()
    for broken in range(batch.size):
        rgb = batch.rgb.clone()
        rgb[broken, 0, 0, 0, 0] += 0.5 if float(rgb[broken, 0, 0, 0, 0]) < 0.5 else -0.5
        with pytest.raises(UserError, match=f"clip {batch.clip_id[broken]}:"):
            BOTH.check(batch, batch._replace(rgb=rgb))


def test_clips_of_two_frames_have_no_acceleration():
    short = clips(size=4, frames=2)
    found = acceleration_change(short.skeleton, short.skeleton + 1, short.present)
    assert torch.equal(found, torch.zeros(short.size))


def test_a_tiny_gradient_still_makes_a_whole_l2_step():
    batch = clips()
    region = ThreatModel(Budget("L2", 0.5), Budget("L2", 0.3)).region(batch, None)
    adv = {m: x.clone() for m, x in region.clean.items()}
    gradient = {m: 1e-30 * torch.randn_like(x) for m, x in adv.items()}
    moved = region.step_(adv, gradient, {"rgb": 0.05, "skeleton": 0.05})
    for name, x in moved.items():
        length = (x - region.clean[name]).flatten(1).norm(dim=1)
        assert length.max() > 0.04, name  # the box of the pixels may cut a step short
