"""A gallery shows what the evaluation measured: same verdicts, same pixels, same joints."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from components.attacks import Budget, ThreatModel
from components.evaluation.cascade import run_cascade
from components.evaluation.gallery import gallery_of, shown_of
from components.evaluation.records import to_records
from components.evaluation.scores import perturb
from components.evaluation.sprites import thin_joints, thin_video, video_sprite
from components.evaluation.suite import PGD20, QUICK, SUITES, Entry


def _by_key(table):
    return {(r["clip_id"], r["cell"], r["attack"]): r for r in table.to_pylist()}


def test_verdicts_are_those_of_the_evaluation(honest, clips, threat):
    some = clips.select(torch.arange(16))
    records = _by_key(to_records(run_cascade(honest, some, QUICK, threat, seed=3)))
    shown = _by_key(gallery_of(honest, some, shown_of(QUICK), threat, seed=3).rows)
    compared = 0
    for key, row in shown.items():
        if key in records and (key[1] == "clean" or key[2] == "pgd20"):
            assert row["labels"][0] == records[key]["prediction"], key
            assert row["correct"] == records[key]["correct"]
            assert row["rgb_linf"] == pytest.approx(records[key]["rgb_linf"])
            compared += 1
    assert compared > 16 + 20
    fallen = [r for r in shown.values() if r["attack"] == "pgd20" and not r["correct"]]
    assert fallen, "the toy model falls somewhere, or this test shows nothing"


def test_a_clip_that_is_wrong_meets_no_attack(honest, clips, threat):
    some = clips.select(torch.arange(6))
    label = some.label.clone()
    label[2] = (label[2] + 1) % 4
    with torch.no_grad():
        assert (honest(*some[:3]).logits.argmax(1)[2] != label[2]).item()
    rows = gallery_of(honest, some._replace(label=label), [PGD20], threat, seed=0).rows
    cells = [r["cell"] for r in rows.to_pylist() if r["clip_id"] == some.clip_id[2]]
    assert cells == ["clean"]
    assert rows.num_rows > 6


def _strip(data: bytes, frames: int) -> np.ndarray:
    """[3, t, h, w] colours of a sprite."""
    picture = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=np.int64)
    return np.stack(np.split(picture, frames, axis=1)).transpose(3, 0, 1, 2)


def test_clip_and_change_come_back_as_they_were(honest, clips, threat):
    some = clips.select(torch.arange(4))
    smooth = torch.nn.functional.avg_pool3d(some.rgb, (1, 9, 9), 1, (0, 4, 4))  # like a film
    with torch.no_grad():
        own = honest(smooth, some.skeleton, some.present).logits.argmax(1)
    some = some._replace(rgb=smooth, label=own)
    entry = Entry("fgsm", "fgsm")
    shown = gallery_of(honest, some, [entry], threat, seed=0)
    right = [r["clip_id"] for r in shown.rows.to_pylist() if r["cell"] == "both"]
    part = some.select(torch.tensor([some.clip_id.index(i) for i in right]))
    found = perturb(honest, part, threat, "fgsm", seed=0)
    rows = _by_key(shown.rows)
    frames = shown.about["frames"]
    assert right
    for i, clip in enumerate(right):
        clean, hit = rows[clip, "clean", "clean"], rows[clip, "both", "fgsm"]
        kept = _strip(clean["video"], frames) / 255
        assert np.abs(kept - part.rgb[i].numpy()).mean() < 0.02  # WebP with losses
        change = (_strip(hit["video"], frames) - 128) * hit["video_step"]
        true = (found.rgb[i] - part.rgb[i]).numpy()
        assert np.abs(change - true).max() <= 0.5 / 255 + 1e-6 and np.abs(change).max() > 0.02

        joints, present = thin_joints(part.skeleton[i], part.present[i])
        stored = np.frombuffer(clean["joints"], np.int16) * clean["joints_step"]
        assert np.allclose(stored.reshape(joints.shape), joints, atol=clean["joints_step"])
        assert clean["present"] == present.numpy().tobytes()
        moved = np.frombuffer(hit["joints"], np.int8) * hit["joints_step"]
        far, _ = thin_joints(found.skeleton[i] - part.skeleton[i], part.present[i])
        assert np.allclose(moved.reshape(far.shape), far, atol=hit["joints_step"])
    assert rows[right[0], "rgb", "fgsm"]["joints"] is None
    assert rows[right[0], "skeleton", "fgsm"]["video"] is None


def test_without_permission_no_part_of_the_clip_is_kept(honest, clips, threat):
    some = clips.select(torch.arange(3))
    shown = gallery_of(honest, some, [PGD20], threat, seed=0, pictures=False)
    assert not shown.about["pictures"]
    for name in ("video", "video_step", "joints", "joints_step", "present"):
        assert shown.rows[name].null_count == shown.rows.num_rows, name
    assert shown.rows["probabilities"].null_count == 0


def test_a_modality_without_budget_has_no_cell(honest, clips):
    threat = ThreatModel(skeleton=Budget("Linf", 0.05))
    shown = gallery_of(honest, clips.select(torch.arange(3)), [PGD20], threat, seed=0)
    assert set(shown.rows["cell"].to_pylist()) == {"clean", "skeleton"}
    assert shown.about["cells"] == ["skeleton"]


def test_large_clips_are_thinned_without_mixing_pixels():
    rgb = torch.rand(3, 20, 224, 224)
    thin = thin_video(rgb)
    assert thin.shape == (3, 8, 56, 56)
    assert torch.equal(thin[:, 0], rgb[:, 1, ::4, ::4])
    present = torch.zeros(70, 2, dtype=torch.bool)
    present[:, 0] = True
    joints, there = thin_joints(torch.rand(3, 70, 25, 2), present)
    assert joints.shape == (32, 1, 25, 3) and there.shape == (32, 1) and bool(there.all())


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_has_something_to_show(suite):
    assert "pgd20" in [entry.name for entry in shown_of(SUITES[suite])]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_stays_black_and_white_white(value):
    picture = Image.open(io.BytesIO(video_sprite(torch.full((3, 2, 8, 8), value))))
    assert picture.convert("RGB").getextrema() == ((int(255 * value),) * 2,) * 3
