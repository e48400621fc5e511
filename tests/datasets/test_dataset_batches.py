"""Batches: the contract of components/batch.py, alignment in time, paired augmentation."""

import threading

import numpy as np
import pytest
import torch

from components.config import from_dict
from components.config.data import DataSection
from components.datasets import (
    BatchLoader,
    ClipDataset,
    describe,
    epoch_batches,
    fixed_batches,
    select_split,
)
from components.datasets.augment import Choice, Ranges, augment_rgb, augment_skeleton, draw
from components.datasets.sampling import instants, rgb_rows, skeleton_rows, window_seconds
from components.ntu.joints import mirror_order
from components.shards import Clip, ShardSet

SIZES = {"rgb_frames": 4, "rgb_size": 16, "skeleton_frames": 10}
OFF = Ranges(mirror=0, temporal_crop=1, shift=0, rotate=0, scale=0)


def custom(**keys: object) -> DataSection:
    base = {"protocol": "custom", "custom": {"subjects": [1, 3, 5]}, "val_subjects": [5]}
    return from_dict({"data": {**base, **keys}}).data


def test_split_and_labels(shards: ShardSet) -> None:
    split = select_split(shards, custom())
    assert split.classes == [3, 7, 60, 61]
    assert (len(split.train), len(split.val), len(split.test)) == (8, 4, 8)
    data = ClipDataset(shards, split.test, split.classes, **SIZES)
    batch = data.batch(range(len(data)))
    for name, label in zip(batch.clip_id, batch.label.tolist(), strict=True):
        assert f"A{split.classes[label]:03d}" in name and name[9:12] in ("002", "004")
    facts = describe(custom(), shards, split)
    assert facts["test"] == 8 and facts["fingerprint"] == shards.fingerprint


def test_protocol_60_leaves_action_61_out(shards: ShardSet) -> None:
    split = select_split(shards, DataSection(protocol="xsub60"))
    assert split.classes == [3, 7, 60]
    used = np.concatenate([split.train, split.val, split.test])
    assert len(used) == 15 == len(set(used.tolist()))


def test_an_unknown_class_is_an_error(shards: ShardSet) -> None:
    with pytest.raises(ValueError, match="clips of action 61"):
        ClipDataset(shards, [0, 1, 2, 3], [3, 7, 60], **SIZES)


@pytest.mark.parametrize("augment", [None, Ranges(mirror=0.5, rotate=0.4)])
def test_batch_contract(shards: ShardSet, augment: Ranges | None) -> None:
    data = ClipDataset(shards, range(20), [3, 7, 60, 61], **SIZES, augment=augment)
    batch = data.batch([0, 5, 9], epoch=2)
    assert batch.rgb.shape == (3, 3, 4, 16, 16) and batch.rgb.dtype == torch.float32
    assert batch.skeleton.shape == (3, 3, 10, 25, 2) and batch.skeleton.dtype == torch.float32
    assert batch.present.shape == (3, 10, 2) and batch.present.dtype == torch.bool
    assert batch.label.dtype == torch.int64 and len(batch.clip_id) == 3
    assert 0 <= batch.rgb.min() and 0.3 < batch.rgb.max() <= 1
    absent = ~batch.present[:, None, :, None].expand_as(batch.skeleton)
    assert absent.any() and not batch.skeleton[absent].any()
    assert batch.skeleton[~absent].any() and torch.isfinite(batch.skeleton).all()
    assert batch.rgb.is_contiguous() and batch.skeleton.is_contiguous()


def test_pixels_and_joints_are_those_of_the_shard(shards: ShardSet) -> None:
    data = ClipDataset(shards, [3], [3, 7, 60, 61], rgb_frames=8, rgb_size=24, skeleton_frames=20)
    batch, clip = data.batch([0]), shards.clip(3)
    frames = (batch.rgb[0].permute(1, 2, 3, 0) * 255).round().to(torch.uint8).numpy()
    np.testing.assert_array_equal(frames, clip.rgb)
    np.testing.assert_array_equal(batch.skeleton[0].permute(1, 3, 2, 0).numpy(), clip.skeleton)


def test_a_clip_is_the_same_in_any_batch(shards: ShardSet) -> None:
    data = ClipDataset(shards, range(20), [3, 7, 60, 61], **SIZES, augment=Ranges(mirror=0.5))
    whole, one = data.batch(range(20), epoch=1), data.batch([13], epoch=1)
    for a, b in zip(whole.select(torch.tensor([13]))[:4], one[:4], strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one.rgb, data.batch([13], epoch=2).rgb)


def made_up(video: int, steps: int, kept: int = 8, rgb_fps: float = 30.0) -> Clip:
    index = (np.arange(kept) * 2 + 1) * video // (2 * kept)
    number = np.arange(steps, dtype=np.float32)
    joints = np.ones((steps, 2, 25, 3), np.float32) * number[:, None, None, None]
    return Clip(
        "S001C001P001R001A001", 1, 1, 1, 1, 1,
        rgb=np.zeros((kept, 4, 4, 3), np.uint8), rgb_index=index.astype(np.int32),
        skeleton=joints, present=np.ones((steps, 2), bool),
        num_rgb_frames=video, num_skeleton_frames=steps, rgb_fps=rgb_fps, skeleton_fps=30.0,
    )  # fmt: skip


@pytest.mark.parametrize(("video", "steps"), [(100, 100), (103, 100), (98, 103), (7, 9), (1, 1)])
def test_streams_are_sampled_at_the_same_instants(video: int, steps: int) -> None:
    clip = made_up(video, steps)
    times = instants(0.0, window_seconds(clip), 8)
    shown = clip.rgb_index[rgb_rows(clip, times)]
    moved = skeleton_rows(clip, times)
    spacing = video / 8
    assert np.abs(shown - moved).max() <= spacing / 2 + 1
    assert (np.diff(shown) >= 0).all() and moved.max() < steps


def test_streams_at_different_rates_stay_aligned() -> None:
    clip = made_up(50, 100, kept=50, rgb_fps=15.0)
    times = instants(0.0, window_seconds(clip), 25)
    assert np.abs(clip.rgb_index[rgb_rows(clip, times)] * 2 - skeleton_rows(clip, times)).max() <= 1


@pytest.mark.parametrize(("video", "steps", "span"), [(30, 90, 2.0), (60, 90, 3.0), (15, 15, 0.5)])
def test_the_window_is_the_shorter_stream_in_seconds(video: int, steps: int, span: float) -> None:
    clip = made_up(video, steps, kept=video, rgb_fps=15.0)  # joints come at 30 a second
    assert window_seconds(clip) == pytest.approx(span)


def test_a_temporal_crop_cuts_both_streams() -> None:
    clip = made_up(100, 100, kept=100)
    times = instants(1.0, 1.0, 10)
    assert set(clip.rgb_index[rgb_rows(clip, times)]) <= set(range(30, 60))
    assert set(skeleton_rows(clip, times)) <= set(range(30, 60))


def test_a_mirror_turns_both_streams_and_undoes_itself() -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (2, 6, 6, 3), dtype=np.uint8)
    joints = rng.normal(size=(5, 2, 25, 3)).astype(np.float32)
    present = np.ones((5, 2), bool)
    choice = Choice(mirror=True)
    np.testing.assert_array_equal(augment_rgb(frames, choice), frames[:, :, ::-1])
    turned, _ = augment_skeleton(joints, present, choice)
    left, right = 5, mirror_order()[5]
    np.testing.assert_array_equal(turned[:, :, left, 0], -joints[:, :, right, 0])
    np.testing.assert_array_equal(turned[:, :, left, 1:], joints[:, :, right, 1:])
    np.testing.assert_array_equal(augment_skeleton(turned, present, choice)[0], joints)
    in_pixels, _ = augment_skeleton(joints, present, choice, width=640.0)
    np.testing.assert_allclose(in_pixels[:, :, left, 0], 640 - joints[:, :, right, 0])


def test_turning_keeps_lengths_and_scaling_changes_them() -> None:
    rng = np.random.default_rng(1)
    joints = rng.normal(size=(5, 2, 25, 3)).astype(np.float32)
    present = np.ones((5, 2), bool)
    present[2, 1] = False
    joints[2, 1] = 0

    def bone(x: np.ndarray) -> np.ndarray:
        return np.linalg.norm(x[:, 0, 3] - x[:, 1, 9], axis=-1)[[0, 1, 3, 4]]

    turned, _ = augment_skeleton(joints, present, Choice(angle=0.7))
    scaled, _ = augment_skeleton(joints, present, Choice(scale=1.1))
    np.testing.assert_allclose(bone(turned), bone(joints), rtol=1e-4)
    np.testing.assert_allclose(turned[present][..., 1], joints[present][..., 1], atol=1e-5)
    np.testing.assert_allclose(bone(scaled), 1.1 * bone(joints), rtol=1e-4)
    assert not turned[2, 1].any() and not scaled[2, 1].any()


def test_a_shift_moves_the_picture_and_repeats_its_edge() -> None:
    frames = np.arange(100, dtype=np.uint8).reshape(1, 10, 10, 1).repeat(3, 3)
    moved = augment_rgb(frames, Choice(shift_x=0.2, shift_y=-0.1))
    np.testing.assert_array_equal(moved[:, :9, 2:], frames[:, 1:, :8])
    np.testing.assert_array_equal(moved[:, :9, 0], frames[:, 1:, 0])
    moved = augment_rgb(frames, Choice(shift_x=-0.3, shift_y=0.2))
    np.testing.assert_array_equal(moved[:, 2:, :7], frames[:, :8, 3:])
    np.testing.assert_array_equal(moved[:, 0, 7:], frames[:, [0, 0, 0], 9])


def test_a_picture_is_mirrored_before_it_is_shifted() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 9, 7, 3), dtype=np.uint8)
    mirrored = augment_rgb(frames, Choice(mirror=True))
    both = augment_rgb(frames, Choice(mirror=True, shift_x=0.3, shift_y=-0.2))
    np.testing.assert_array_equal(both, augment_rgb(mirrored, Choice(shift_x=0.3, shift_y=-0.2)))


def test_drawn_choices_stay_in_their_bounds_and_off_means_off() -> None:
    names = [f"clip{i}" for i in range(500)]
    settings = Ranges(mirror=0.5, temporal_crop=0.6, shift=0.1, rotate=0.3, scale=0.2)
    choices = draw(settings, 0, names, 0)
    assert all(0 <= c.start and c.start + c.share <= 1 + 1e-9 and c.share >= 0.6 for c in choices)
    assert all(abs(c.shift_x) <= 0.1 and abs(c.angle) <= 0.3 for c in choices)
    assert all(abs(c.scale - 1) <= 0.2 + 1e-9 for c in choices)
    assert 200 < sum(c.mirror for c in choices) < 300
    assert all(c == replace_start(c) for c in draw(OFF, 0, names, 0))


def replace_start(choice: Choice) -> Choice:
    return Choice(scale=choice.scale, angle=choice.angle)._replace(scale=1.0, angle=0.0)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_loader_gives_all_batches_in_order(shards: ShardSet, prefetch: int) -> None:
    data = ClipDataset(shards, range(20), [3, 7, 60, 61], **SIZES, augment=OFF)
    steps = epoch_batches(20, 6, seed=0, epoch=1)
    loader = BatchLoader(data, steps, epoch=1, prefetch=prefetch)
    got = [batch.clip_id for batch in loader]
    assert len(loader) == 4
    assert got == [tuple(data.clip_ids[i] for i in step) for step in steps]


def test_an_error_in_the_thread_reaches_the_loop(shards: ShardSet) -> None:
    data = ClipDataset(shards, range(4), [3, 7, 60, 61], **SIZES)
    with pytest.raises(IndexError):
        for _ in BatchLoader(data, [np.array([0]), np.array([99])]):
            pass


def test_leaving_the_loop_early_ends_the_thread(shards: ShardSet) -> None:
    data = ClipDataset(shards, range(20), [3, 7, 60, 61], **SIZES)
    for _ in BatchLoader(data, fixed_batches(20, 1)):
        break
    assert not any(thread.name == "batches" for thread in threading.enumerate())


def test_pixel_units_are_never_turned(shards: ShardSet) -> None:
    joints = np.random.default_rng(2).normal(size=(3, 2, 25, 3)).astype(np.float32)
    joints[..., 2] = 0
    turned, _ = augment_skeleton(joints, np.ones((3, 2), bool), Choice(angle=0.5), width=640.0)
    np.testing.assert_allclose(turned, joints, atol=1e-6)
