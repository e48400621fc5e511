"""The first layer: differentiable, and independent of values at absent persons."""

import math

import pytest
import torch

from components.models.normalize import SkeletonNormalize, VideoNormalize


def test_video_statistics_become_zero_and_one() -> None:
    normalize = VideoNormalize(mean=(0.2, 0.4, 0.6), std=(0.1, 0.2, 0.5))
    rgb = torch.tensor([0.3, 0.4, 0.1]).view(1, 3, 1, 1, 1)
    assert torch.allclose(normalize(rgb).flatten(), torch.tensor([1.0, 0.0, -1.0]), atol=1e-6)


@pytest.mark.parametrize("centre", ["body", "spine"])
def test_origin_is_the_first_person_of_the_first_frame_with_anybody(centre: str) -> None:
    skeleton = torch.randn(1, 3, 4, 25, 2, generator=torch.Generator().manual_seed(0))
    present = torch.zeros(1, 4, 2, dtype=torch.bool)
    present[0, 2:, 0] = True
    present[0, 1:, 1] = True  # person 1 comes first, in frame 1
    x, real = SkeletonNormalize(centre=centre, motion=False)(skeleton, present)
    joints = skeleton[0, :, 1, :, 1]
    origin = joints[:, 1] if centre == "spine" else joints.mean(1)
    assert real.tolist() == [[1.0, 1.0]]
    assert torch.allclose(x[0, :, 1, 1], joints - origin[:, None], atol=1e-6)
    assert torch.allclose(x[0, :, 0, 2], skeleton[0, :, 2, :, 0] - origin[:, None], atol=1e-6)
    assert not x[0, :, 0, :2].any()  # frames in which person 0 is not tracked stay 0


def test_same_walk_elsewhere_looks_the_same() -> None:
    skeleton, present = torch.randn(2, 3, 6, 25, 2), torch.ones(2, 6, 2, dtype=torch.bool)
    normalize = SkeletonNormalize(motion=True)
    moved = skeleton + torch.tensor([3.0, -1.0, 2.0]).view(1, 3, 1, 1, 1)
    a, b = normalize(skeleton, present)[0], normalize(moved, present)[0]
    assert torch.allclose(a, b, atol=1e-5)


def test_rotation_undoes_a_turn_of_the_camera() -> None:
    skeleton, present = torch.randn(2, 3, 5, 25, 2), torch.ones(2, 5, 2, dtype=torch.bool)
    normalize = SkeletonNormalize(rotate=True, motion=False)
    angle = 0.7
    x, y, z = skeleton.unbind(1)
    turned = torch.stack(
        [
            math.cos(angle) * x + math.sin(angle) * z,
            y,
            math.cos(angle) * z - math.sin(angle) * x,
        ],
        1,
    )
    straight = normalize(skeleton, present)[0]
    assert torch.allclose(straight, normalize(turned, present)[0], atol=1e-4)
    across = straight[:, :, 0, 0, 8] - straight[:, :, 0, 0, 4]  # first frame, right - left
    assert torch.allclose(across[:, 2], torch.zeros(2), atol=1e-5)
    assert (across[:, 0] > 0).all()


def test_rotation_of_an_empty_clip_is_finite_with_finite_gradient() -> None:
    skeleton = torch.zeros(1, 3, 4, 25, 2, requires_grad=True)
    x, real = SkeletonNormalize(rotate=True)(skeleton, torch.zeros(1, 4, 2, dtype=torch.bool))
    x.sum().backward()
    assert not real.any() and not x.any()
    assert not skeleton.grad.any()


def test_motion_is_the_change_between_tracked_frames() -> None:
    skeleton = torch.randn(1, 3, 4, 25, 1)
    present = torch.tensor([True, True, False, True]).view(1, 4, 1)
    x, _ = SkeletonNormalize(motion=True)(skeleton, present)
    motion = x[0, 3:, 0]
    assert torch.allclose(
        motion[:, 1], skeleton[0, :, 1, :, 0] - skeleton[0, :, 0, :, 0], atol=1e-6
    )
    assert not motion[:, 0].any() and not motion[:, 2].any() and not motion[:, 3].any()


def test_nothing_at_absent_places_is_seen_and_no_gradient_reaches_them() -> None:
    skeleton = torch.randn(3, 3, 4, 25, 2)
    present = torch.ones(3, 4, 2, dtype=torch.bool)
    present[0, :, 1] = False
    present[1, :2, 0] = False
    normalize = SkeletonNormalize(rotate=True)
    absent = ~present[:, None, :, None, :].expand_as(skeleton)
    poisoned = skeleton.masked_fill(absent, float("nan")).requires_grad_()
    x, _ = normalize(poisoned, present)
    assert torch.equal(x, normalize(skeleton, present)[0])
    (gradient,) = torch.autograd.grad(x.square().sum(), poisoned)
    assert not gradient[absent].any()
    assert gradient[~absent].abs().sum() > 0


def test_empty_places_hold_the_clips_own_person() -> None:
    skeleton, present = torch.randn(1, 3, 4, 25, 2), torch.ones(1, 4, 2, dtype=torch.bool)
    present[0, :, 0] = False
    x, real = SkeletonNormalize()(skeleton, present)
    assert real.tolist() == [[0.0, 1.0]]
    assert torch.equal(x[:, :, 0], x[:, :, 1])


def test_statistics_of_the_data_are_settings_and_no_weights() -> None:
    """In a checkpoint they would hold against the settings that say otherwise."""
    assert not VideoNormalize(mean=(0.2, 0.4, 0.6), std=(0.1, 0.2, 0.5)).state_dict()
