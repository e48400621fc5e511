"""What an evaluation keeps for others: galleries, adversarial sets, the names of its suites."""

import io
import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch import nn

from components.attacks import frozen
from components.errors import UserError
from components.evaluation.adversarial_set import export_adversarial, read_adversarial, replay
from components.evaluation.cascade import run_cascade
from components.evaluation.faster import foldable
from components.evaluation.gallery import gallery_of, read_gallery, to_file_table
from components.evaluation.sprites import (
    change_sprite,
    evenly,
    thin_joints,
    thin_video,
    whole_steps,
)
from components.evaluation.suite import (
    PGD20,
    SUITES,
    Entry,
    describe,
    entries_of,
    is_current,
    suite_hash,
)
from tests._support.linear import THREAT, Linear, clips


def write(path, table) -> None:
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


def test_folding_is_compared_on_sixteen_clips_and_may_differ_by_rounding() -> None:
    class Swapped(nn.Module):
        """Runs the norm before the convolution: folded it differs by `gap` of a logit of 1."""

        def __init__(self, gap: float) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Conv3d(3, 3, 1, bias=False), nn.BatchNorm3d(3, eps=0.0))
            with torch.no_grad():
                self.first[0].weight.copy_(
                    torch.diag(torch.tensor([2.0, 1, 0]))[:, :, None, None, None]
                )
                self.first[1].running_mean[0] = gap  # the largest logit, and the largest gap
            self.seen: list[int] = []
            self.folded = False

        def forward(self, rgb, skeleton, present):
            self.seen.append(len(rgb))
            self.folded |= rgb.requires_grad and "forward" in self.first[1].__dict__
            conv, norm = self.first
            return conv(norm(rgb)).mean((2, 3, 4))

    many = clips([0.0] * 20, [0.0] * 20)
    for gap, same in ((0.0, True), (0.9e-4, True), (1.1e-4, False), (1e-2, False)):
        model = Swapped(gap)
        with frozen(model):
            assert foldable(model, many) is same, gap
            assert foldable(model, many.select(torch.arange(3))) is same
        assert model.seen == [16, 16, 3, 3] and not model.folded
        gallery_of(model, many, [Entry("fgsm", "fgsm")], THREAT, seed=0, pictures=False)
        assert model.folded is same


def test_clips_are_thinned_to_these_sizes() -> None:
    assert evenly(20, 8).tolist() == [1, 3, 6, 8, 11, 13, 16, 18]
    assert evenly(3, 8).tolist() == [0, 1, 2] and evenly(8, 8).tolist() == list(range(8))
    shapes = {64: 64, 65: 33, 128: 64, 129: 43}
    for side, kept in shapes.items():
        other = -(-40 // -(-side // 64))
        assert thin_video(torch.zeros(3, 9, side, 40)).shape == (3, 8, kept, other)
        assert thin_video(torch.zeros(3, 2, 40, side)).shape == (3, 2, other, kept)
    assert thin_video(torch.zeros(3, 130, 8, 8)).shape == (3, 8, 8, 8)
    joints = torch.arange(3 * 33 * 25 * 2.0).reshape(3, 33, 25, 2)
    for filled, persons in (((), 1), ((0,), 1), ((1,), 2), ((0, 1), 2)):
        present = torch.zeros(33, 2, dtype=torch.bool)
        present[5, list(filled)] = True
        thin, there = thin_joints(joints, present)
        assert thin.shape == (32, persons, 25, 3) and there.shape == (32, persons)
        assert torch.equal(thin[0, 0], joints[:, 0, :, 0].T)
        assert torch.equal(thin[:, :, 3, 1], joints[1, evenly(33, 32), 3, :persons])
    for kind, most in ((np.int8, 127), (np.int16, 32767)):
        body, step = whole_steps(torch.tensor([-0.5, 0.25, 0.0]), kind)
        assert np.frombuffer(body, kind).tolist() == [-most, round(most / 2 + 1e-6), 0]
        assert step == pytest.approx(0.5 / most)
        assert whole_steps(torch.zeros(2), kind) == (bytes(2 * np.dtype(kind).itemsize), 1.0)
        assert whole_steps(torch.zeros(0), kind) == (b"", 1.0)


@pytest.mark.parametrize(("largest", "step"), [(0.3, 1 / 255), (0.9, 0.9 / 127)])
def test_a_change_is_kept_in_whole_steps_of_a_screen(largest: float, step: float) -> None:
    """Of 1/255, unless the change is too large for 127 of them; grey is no change."""
    change = largest * torch.linspace(-1, 1, 3 * 2 * 4 * 4).reshape(3, 2, 4, 4)
    data, found = change_sprite(change)
    assert found == pytest.approx(step)
    strip = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=float)
    assert strip.shape == (4, 8, 3)
    colours = np.stack(np.split(strip, 2, axis=1)).transpose(3, 0, 1, 2)
    np.testing.assert_allclose((colours - 128) * step, change, atol=step / 2 + 1e-6)


def test_a_gallery_tells_of_each_clip_what_the_model_said(tmp_path) -> None:
    some = clips([0.3, 0.3, 0.02], [0.1, -0.5, 0.0])
    model = Linear(7)
    entry = Entry("fgsm", "fgsm")
    shown = gallery_of(model, some, [entry], THREAT, seed=0, cells=("rgb",))
    rows = shown.rows.to_pylist()
    assert [(r["clip_id"], r["cell"], r["attack"]) for r in rows] == [
        *((f"c{i}", "clean", "clean") for i in range(3)),
        *((f"c{i}", "rgb", "fgsm") for i in (0, 2)),
    ]
    assert [r["correct"] for r in rows] == [True, False, True, True, False]
    steps = [0.4, -0.2, 0.02, 0.3, -0.08]  # the sum of pixel and joint
    for row, size in zip(rows, steps, strict=True):
        chances = (size * model.slope).softmax(0)
        best = chances.sort(descending=True)
        assert row["labels"] == best.indices[:5].tolist()
        assert row["probabilities"] == pytest.approx(best.values[:5].tolist(), abs=1e-5)
        assert row["label_probability"] == pytest.approx(float(chances[0]), abs=1e-5)
    video = [0.3, 0.3, 0.02, 0.2, -0.08]
    for row, v in zip(rows, video, strict=True):
        weight = ((v + 0.5) + 0.2 * (v + 1.5)) / 2  # mean of the places
        assert row["weights"] == pytest.approx([weight, 1 - weight], abs=1e-6)
    assert [r["rgb_linf"] for r in rows] == pytest.approx([0, 0, 0, 0.1, 0.1], abs=1e-5)
    assert shown.about == {
        "format": "gallery/1", "pictures": True, "attacks": describe([entry]), "cells": ["rgb"],
        "threat": THREAT.as_dict(), "frames": 2, "steps": 4,
    }  # fmt: skip
    write(tmp_path / "gallery.arrow", to_file_table(shown))
    again = read_gallery(tmp_path / "gallery.arrow")
    assert again.rows.equals(shown.rows) and again.about == json.loads(json.dumps(shown.about))
    assert not again.rows.schema.metadata
    for metadata in (None, {"gallery": json.dumps({"format": "gallery/0"})}):
        write(tmp_path / "other.arrow", shown.rows.replace_schema_metadata(metadata))
        with pytest.raises(UserError, match="no gallery of format gallery/1; evaluate again"):
            read_gallery(tmp_path / "other.arrow")
    (tmp_path / "none.arrow").write_bytes(b"not this")
    with pytest.raises(UserError, match="no Arrow file.*evaluate again"):
        read_gallery(tmp_path / "none.arrow")

    class Silent(nn.Module):
        def forward(self, rgb, skeleton, present):
            return torch.full((len(rgb), 3), torch.nan)

    silent = gallery_of(Silent(), some, [entry], THREAT, seed=0).rows.to_pydict()
    assert silent["correct"] == [False] * 3 and silent["weights"] == [None] * 3
    assert silent["probabilities"] == [[0.0] * 3] * 3

    class Unsure(Linear):
        def forward(self, rgb, skeleton, present):
            output = super().forward(rgb, skeleton, present)
            return output._replace(weights={"late": output.weights["late"] * torch.nan})

    alone = some.select(torch.tensor([2]))
    unsure = gallery_of(Unsure(), alone, [entry], THREAT, seed=0)
    assert unsure.rows["weights"].to_pylist() == [[0.0, 0.0]] * unsure.rows.num_rows
    assert (unsure.about["frames"], unsure.about["steps"]) == (2, 4)


def test_an_adversarial_set_comes_back_block_by_block(tmp_path) -> None:
    entries = [Entry("pgd", "pgd", {"steps": 2})]
    parts = [clips([0.3, 0.02], [0.1, 0.1]), clips([0.05, -0.3, 0.4], [0.1, 0.0, 0.0], [0, 2, 2])]
    made = [run_cascade(Linear(), part, entries, THREAT, seed=0, keep=True) for part in parts]
    made[0].worst["rgb"].margin[1] = torch.nan
    path = tmp_path / "a.arrow"
    assert path == export_adversarial(made, path, synthetic=False, allow_licensed_export=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.arrow"]
    blocks = list(read_adversarial(path))
    assert [cell for cell, _ in blocks] == 2 * ["rgb", "skeleton", "both"]
    for number, (cell, block) in enumerate(blocks):
        result = made[number // 3]
        worst = result.worst[cell]
        wanted = result.clips._replace(rgb=worst.rgb, skeleton=worst.skeleton)
        for one, other in zip(block[:4], wanted[:4], strict=True):
            assert torch.equal(one, other) and one.dtype == other.dtype
        assert block.clip_id == wanted.clip_id
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    assert table["margin"].to_pylist()[1] == -np.inf
    assert table["margin"].to_pylist()[2:4] == made[0].worst["skeleton"].margin.tolist()
    again = replay(Linear(), path)
    assert {cell: a["n"] for cell, a in again.items()} == dict.fromkeys(made[0].worst, 5)
    for words in ({}, {"allow_licensed_export": False}):
        with pytest.raises(UserError, match=r"evaluate\.allow_licensed_export=true"):
            export_adversarial(made, tmp_path / "b.arrow", synthetic=False, **words)
    export_adversarial(made[1:], tmp_path / "one.arrow", synthetic=True)
    assert [block.size for _, block in read_adversarial(tmp_path / "one.arrow")] == [3, 3, 3]
    with pytest.raises(UserError, match="keep=True"):
        export_adversarial([], tmp_path / "b.arrow", synthetic=True)
    for metadata in (None, {"format": "adversarial-clips/0"}):
        write(tmp_path / "c.arrow", table.replace_schema_metadata(metadata))
        with pytest.raises(UserError, match="no adversarial clips of format"):
            list(read_adversarial(tmp_path / "c.arrow"))


@pytest.mark.parametrize("suite", SUITES)
def test_hashes_of_a_suite_for_any_model_are_current(suite: str) -> None:
    for has in ((), ("aux",), ("weights",), ("twin", "aux"), ("twin", "aux", "weights")):
        assert is_current(suite, suite_hash(entries_of(suite, frozenset(has))))
    assert not is_current(suite, suite_hash([PGD20])) and not is_current(suite, "")
    assert is_current("somebody's own", "anything")
    with pytest.raises(UserError, match="share a name: pgd20, pgd20"):
        entries_of([PGD20, PGD20])
    assert entries_of([PGD20, Entry("a", "b", needs="twin")]) == [PGD20]
    assert describe([PGD20]) == [
        {"name": "pgd20", "attack": "pgd", "parameters": {"steps": 20, "early_stop": True},
         "individual": True, "needs": ""}
    ]  # fmt: skip
    assert len(suite_hash([])) == 12
