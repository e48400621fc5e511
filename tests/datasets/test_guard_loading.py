"""From shards to batches, to the last number: each test holds many lines that are easy to break."""

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from components.config import from_dict
from components.datasets import BatchLoader, ClipDataset, Split, describe, epoch_batches
from components.datasets.augment import Choice, Ranges, augment_rgb, augment_skeleton, draw
from components.datasets.for_each import for_each
from components.datasets.sampling import instants, rgb_rows, skeleton_rows
from components.shards import ShardSet
from components.sources import SOURCES

CLASSES = [3, 7, 60, 61]
SIZES = {"rgb_frames": 8, "rgb_size": 24, "skeleton_frames": 10}
LIVELY = Ranges(mirror=0.5, temporal_crop=0.3, shift=0.2, rotate=0.5, scale=0.3)


def test_what_is_drawn_for_a_clip_is_the_same_for_ever(pinned) -> None:
    """Or every run would change silently. The ranges of params.yaml are the defaults."""
    figures = {}
    for name, ranges in (("lively", LIVELY), ("defaults", Ranges())):
        for i, choice in enumerate(draw(ranges, 3, ["a", "b"], 2)):
            figures |= {f"{name}/{i}/{k}": float(v) for k, v in choice._asdict().items()}
    pinned("draw", figures)


@pytest.mark.parametrize("choice", [Choice(), Choice(mirror=True), Choice(shift_x=0.3)])
@pytest.mark.parametrize("down", [0.0, 0.25, -0.25])
def test_every_pixel_comes_from_where_mirror_and_shift_say(choice: Choice, down: float) -> None:
    height, width = 8, 10
    frames = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    found = augment_rgb(frames, choice._replace(shift_y=down))
    for y in range(height):
        for x in range(width):
            right = width - 1 - x if choice.mirror else x
            row = min(max(y - round(down * height), 0), height - 1)
            column = min(max(right - round(choice.shift_x * width), 0), width - 1)
            np.testing.assert_array_equal(found[:, y, x], frames[:, row, column])


@pytest.mark.parametrize("width", [None, 640.0])
def test_people_turn_about_the_vertical_axis_through_their_middle(width: float | None) -> None:
    rng = np.random.default_rng(1)
    joints = rng.normal(2.0, 1.0, (3, 2, 25, 3)).astype(np.float32)
    present = np.array([[True, True], [True, False], [True, True]])
    joints[~present] = 0.0
    choice = Choice(angle=0.4, scale=1.2)
    found, there = augment_skeleton(joints, present, choice, width=width)
    middle = joints[present].reshape(-1, 3).mean(0)
    x, y, z = np.moveaxis(joints - middle, -1, 0)
    c, s = (np.cos(0.4), np.sin(0.4)) if width is None else (1.0, 0.0)
    wanted = 1.2 * np.stack([c * x + s * z, y, c * z - s * x], -1) + middle
    wanted[~present] = 0.0
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert there is present and found.dtype == np.float32
    nobody = np.zeros((3, 2), bool)
    with np.errstate(all="raise"):
        assert not augment_skeleton(joints * 0, nobody, choice, width=width)[0].any()


def test_frames_are_those_nearest_to_the_instants() -> None:
    clip = SimpleNamespace(
        rgb_fps=10.0, skeleton_fps=20.0, num_skeleton_frames=9, rgb_index=np.array([0, 2, 4, 9])
    )
    np.testing.assert_allclose(instants(1.0, 2.0, 4), [1.25, 1.75, 2.25, 2.75])
    # Frames shown at these instants: 0, 0, 1 (as near to 0 as to 2), 3, 6, 7, 9, and 20, the last.
    times = np.array([0.0, 0.099, 0.1, 0.39, 0.69, 0.7, 0.9, 2.0])
    assert rgb_rows(clip, times).tolist() == [0, 0, 0, 1, 2, 3, 3, 3]
    assert skeleton_rows(clip, times).tolist() == [0, 1, 2, 7, 8, 8, 8, 8]
    # An instant that rounding left a hair below its frame is that frame's.
    assert skeleton_rows(clip, np.array([0.15 - 1e-9, 0.149])).tolist() == [3, 2]
    assert rgb_rows(clip, np.array([0.2 - 1e-9])).tolist() == [1]


@pytest.mark.parametrize("augment", [None, LIVELY], ids=["plain", "augmented"])
@pytest.mark.parametrize("size", [24, 16])
def test_another_device_gets_the_same_numbers(augment, size, shards: ShardSet, monkeypatch) -> None:
    """Pixels travel as bytes; here to the CPU under another name, without its pinned memory."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    sizes = {**SIZES, "rgb_size": size}
    data = ClipDataset(shards, range(20), CLASSES, **sizes, augment=augment, seed=4)
    here, there = data.batch([3, 0, 7], epoch=2), data.batch([3, 0, 7], epoch=2, device="cpu:0")
    for one, other in zip(here[:4], there[:4], strict=True):
        assert one.dtype == other.dtype and other.is_contiguous()
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
    assert here.clip_id == there.clip_id
    (batch,) = BatchLoader(data, [np.array([3, 0, 7])], epoch=2, device="cpu:0")
    assert torch.equal(batch.rgb, there.rgb)
    sampled = data.read([3, 0, 7], epoch=2)
    assert sampled.rgb.shape == (3, 8, 24, 24, 3) and sampled.rgb.dtype == np.uint8


def test_smaller_pictures_are_the_antialiased_ones(shards: ShardSet) -> None:
    data = ClipDataset(shards, [5], CLASSES, **{**SIZES, "rgb_size": 15})
    found = (255 * data.batch([0]).rgb[0].permute(1, 2, 3, 0)).numpy()
    for shown, frame in zip(found, shards.clip(5).rgb, strict=True):
        wanted = Image.fromarray(frame).resize((15, 15), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(shown, np.asarray(wanted, float), atol=1.01)


@pytest.mark.parametrize("augment", [LIVELY, None])
def test_frames_and_sizes_are_those_of_the_model(augment, shards: ShardSet) -> None:
    model = {**SIZES, "rgb_size": 16, "rgb_frames": 16, "width": 1.0}
    for seed in (0, 6):
        made = ClipDataset.for_model(shards, [4, 9], CLASSES, model, augment=augment, seed=seed)
        batch = made.batch([0, 1])
        assert batch.rgb.shape == (2, 3, 16, 16, 16) and batch.skeleton.shape == (2, 3, 10, 25, 2)
        sizes = {name: model[name] for name in SIZES}
        same = ClipDataset(shards, [4, 9], CLASSES, **sizes, augment=augment, seed=seed)
        assert torch.equal(batch.skeleton, same.batch([0, 1], epoch=0).skeleton)
        np.testing.assert_array_equal(same.read([0, 1]).joints, same.read([0, 1], epoch=0).joints)
    # Without a word on it there is no augmentation, and the seed is 0.
    plain = ClipDataset.for_model(shards, [4, 9], CLASSES, model)
    assert plain.augment is None and plain.seed == 0
    assert ClipDataset(shards, [4], CLASSES, **SIZES).seed == 0
    assert BatchLoader(plain, []).epoch == 0


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_pieces_of_work_run_once_each_on_the_threads_there_are(count: int, monkeypatch) -> None:
    monkeypatch.setattr("components.datasets.for_each.torch.get_num_threads", lambda: 3)
    done: list[tuple[int, threading.Thread]] = []
    together = threading.Barrier(min(3, count)) if count > 1 else None

    def work(i: int) -> None:
        if together and i < min(3, count):
            together.wait(timeout=20)  # so many threads there are at once
        done.append((i, threading.current_thread()))

    for _ in range(3):
        for_each(work, count)
    assert sorted(i for i, _ in done) == sorted(3 * list(range(count)))
    threads = {thread for _, thread in done}
    assert len(threads) <= min(3, count)
    if count < 2:
        assert threads <= {threading.main_thread()}

    def fail(i: int) -> None:
        if i == count - 1:
            raise ZeroDivisionError

    if count:
        with pytest.raises(ZeroDivisionError):
            for_each(fail, count)


@pytest.mark.parametrize(
    ("options", "ahead"), [({"prefetch": 1}, 1), ({}, 2), ({"prefetch": 0}, -1)]
)
def test_so_many_batches_are_kept_ready(options, ahead: int, shards: ShardSet) -> None:
    """Of one that is in use, those kept ready, and the one that is then made and waits."""
    data, made = ClipDataset(shards, range(8), CLASSES, **SIZES), []

    def batch(*words: object):
        made.append(words)
        return ClipDataset.batch(data, *words)

    view = SimpleNamespace(batch=batch)
    loop = iter(BatchLoader(view, [np.array([i]) for i in range(8)], **options))
    next(loop)
    end = time.monotonic() + 5
    while len(made) < ahead + 2 and time.monotonic() < end:
        time.sleep(0.002)
    time.sleep(0.02)
    assert len(made) == ahead + 2
    loop.close()
    assert len(made) <= ahead + 3


def test_what_was_trained_on_is_told_in_full(shards: ShardSet, monkeypatch) -> None:
    rows = np.arange(20)
    split = Split(rows[:11], rows[11:14], rows[14:], [3, 7, 60], ("a note",))
    section = from_dict({"data": {"protocol": "xsub60"}}).data
    told = {
        "source": "ntu", "unit": "metres", "protocol": "xsub60",
        "fingerprint": shards.fingerprint, "clips": 20, "train": 11, "val": 3, "test": 6,
        "classes": 3, "notes": ["a note"],
    }  # fmt: skip
    assert describe(section, shards, split) == told
    noted = replace(SOURCES["ntu"], note="seen through fog")
    monkeypatch.setitem(SOURCES, "ntu", noted)
    assert describe(section, shards, split)["notes"] == ["a note", "seen through fog"]
    monkeypatch.delitem(SOURCES, "ntu")
    assert describe(section, shards, split) == told


def test_orders_that_nobody_can_have_are_refused() -> None:
    for words in ({"rank": -1, "world": 2}, {"rank": 2, "world": 2}, {"rank": 1}):
        with pytest.raises(ValueError, match="is not one of"):
            epoch_batches(8, 4, seed=0, epoch=0, **words)
    assert [len(b) for b in epoch_batches(1, 1, seed=0, epoch=0)] == [1]
    assert len(epoch_batches(8, 4, seed=0, epoch=0)) == len(
        epoch_batches(8, 4, seed=0, epoch=0, rank=0, world=1, start=0)
    )
