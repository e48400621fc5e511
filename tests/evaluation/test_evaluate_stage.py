"""The stage on small shards: equal bytes for any number of workers, and after a SIGKILL."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks._clips import seal_rows
from components.checkpoint import load_model, save_checkpoint
from components.evaluation import read_gallery, replay
from components.evaluation.piece import read_piece, write_atomically
from components.models import build_model
from mlflow_tracking import lineage
from pipelines._stage import ROOT, run_stage
from pipelines.evaluate import main

MODEL = {
    "rgb": "small_video", "skeleton": "small_skeleton", "fusion": "amr", "fusion_stages": [],
    "width": 0.25, "dropout": 0.0, "rgb_frames": 2, "rgb_size": 16, "skeleton_frames": 4,
    "rgb_weights": "", "amr": {"distil": 1.0},
}  # fmt: skip
SETTINGS = {
    "source": "ntu", "unit": "metres", "codec": "raw", "jpeg_quality": 0,
    "frames": 2, "size": 16, "margin": 0.1,
}  # fmt: skip


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory, clips_maker):
    """Shards of 72 clips, half of them test, and a model that has learned the other half."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("artifacts")
    clips = clips_maker(72)
    write_shards(folder / "shards", clips)
    torch.manual_seed(0)
    model = build_model({**MODEL, "num_classes": 4})
    known = clips.select(torch.arange(36))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(40):
        logits = model(known.rgb, known.skeleton, known.present).logits
        loss = torch.nn.functional.cross_entropy(logits, known.label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    about = {"model": MODEL, "num_classes": 4, "classes": [1, 2, 3, 4]}
    attack = {"attack": {"rgb_eps": 0.01, "skeleton_eps": 0.02}}
    save_checkpoint(folder / "train" / "amr-s0" / "best", model, {**about, "train": attack})
    return folder


def write_shards(folder: Path, clips) -> None:
    """Subjects 1 and 3 share the first half, subject 2 has the second."""
    folder.mkdir()
    rows = []
    for i in range(clips.size):
        subject = 2 if 2 * i >= clips.size else 1 + 2 * (i // 4 % 2)
        action = 1 + int(clips.label[i])
        frames = (clips.rgb[i] * 255).to(torch.uint8).permute(1, 2, 3, 0).numpy()
        joints = clips.skeleton[i].permute(1, 3, 2, 0).numpy()
        rows.append({
            "clip_id": f"S{1 + i:03d}C001P{subject:03d}R001A{action:03d}", "setup": 1 + i,
            "camera": 1, "subject": subject, "replication": 1, "action": action,
            "num_rgb_frames": 2, "num_skeleton_frames": 4, "rgb_fps": 15.0, "skeleton_fps": 30.0,
            "width": 16, "height": 16, "box": [0, 0, 16], "persons": 1, "flags": [],
            "rgb_index": np.arange(2, dtype=np.int32),
            "rgb": [frame.tobytes() for frame in frames],
            "skeleton_index": np.arange(4, dtype=np.int32),
            "skeleton": np.ascontiguousarray(joints, dtype=np.float32).reshape(4, -1),
            "present": clips.present[i].to(torch.uint8).numpy(),
        })  # fmt: skip
    seal_rows(folder, rows, SETTINGS)


def command(source: Path, out: Path, *more: str) -> list[str]:
    """The stage's command line with results in `out`."""
    out.mkdir(exist_ok=True)
    for name in ("shards", "train"):
        if not (out / name).exists():
            (out / name).symlink_to(source / name)
    return [
        sys.executable, "-m", "pipelines.evaluate", "variant=amr", f"paths.artifacts={out}",
        "data.protocol=custom", "data.custom.subjects=[1,3]", "data.val_subjects=[3]",
        "evaluate.batch_size=6", "evaluate.curve_clips=16", *more,
    ]  # fmt: skip


def run(words: list[str]) -> subprocess.CompletedProcess:
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def test_workers_and_a_kill_change_no_byte(artifacts, tmp_path):
    one = tmp_path / "one"
    done = run(command(artifacts, one, "ray.tasks=1"))
    assert "clean" in done.stderr
    summary = json.loads((one / "evaluation" / "amr-s0.json").read_text())
    assert summary["clips"] == 36 and summary["clean_acc"]["value"] > 0.5
    assert set(summary["robust_acc"]) >= {"fgsm", "pgd20", "attention_touched", "square"}
    assert {f["check"] for f in summary["flags"]} >= {"more_steps", "black_box"}
    curves = json.loads((one / "evaluation" / "amr-s0_curves.json").read_text())
    assert curves["train_eps"] == {"rgb": 0.01, "skeleton": 0.02} and curves["clips"] == 16
    pieces = one / "partial" / "evaluation" / "amr-s0"
    assert {p.stem.partition("-")[0] for p in pieces.iterdir()} == {
        "suite", "checks", "curves", "gallery"
    }  # fmt: skip
    gallery = read_gallery(one / "evaluation" / "amr-s0_gallery.arrow")
    assert len(set(gallery.rows["clip_id"].to_pylist())) == 16
    # These clips are not the synthetic sample, and nobody has said that copies are allowed.
    assert not gallery.about["pictures"]
    assert (
        gallery.rows["video"].null_count == gallery.rows["joints"].null_count == len(gallery.rows)
    )

    two = tmp_path / "two"
    words = command(artifacts, two, "ray.tasks=2")
    partial = two / "partial" / "evaluation" / "amr-s0"
    process = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while not list(partial.glob("suite-*.arrow")) and time.monotonic() < deadline:
        assert process.poll() is None, "the stage ended before it could be killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = sorted(partial.glob("suite-*.arrow"))
    assert finished and not (two / "evaluation" / "amr-s0.json").exists()
    # Mark a finished piece: its cost shows in the summary only if it was not done again.
    table, told = read_piece(finished[0])
    told["costs"][0]["seconds"] = 1e6
    write_atomically(
        finished[0], table.replace_schema_metadata({b"aside": json.dumps(told).encode()})
    )
    run(words)
    again = json.loads((two / "evaluation" / "amr-s0.json").read_text())
    assert again["cost"]["total"]["seconds"] > 1e6
    for name in ("amr-s0.arrow", "amr-s0_curves.json", "amr-s0_gallery.arrow"):
        first, second = ((d / "evaluation" / name).read_bytes() for d in (one, two))
        assert first == second
    assert {k: v for k, v in again.items() if k != "cost"} == {
        k: v for k, v in summary.items() if k != "cost"
    }


def test_what_is_evaluated_already_is_only_put_together_again(artifacts, tmp_path):
    """As `dvc repro` does after the training of another model, having removed the results."""
    words = command(artifacts, tmp_path, "evaluate.suite=thin", "evaluate.curve_clips=0")
    run(words)
    folder = tmp_path / "evaluation"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    pieces = tmp_path / "partial" / "evaluation" / "amr-s0"
    made = {path: path.stat().st_mtime_ns for path in pieces.iterdir()}
    shutil.rmtree(folder)
    (pieces / "suite-of-another-suite.arrow").write_bytes(b"")
    run(words)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert {path: path.stat().st_mtime_ns for path in pieces.iterdir()} == made


def test_export_is_refused_before_any_work(artifacts, tmp_path, capsys):
    words = command(artifacts, tmp_path / "out", "evaluate.export=true", f"paths.data={tmp_path}")
    assert run_stage("evaluate", main, words[3:]) == 2
    assert "evaluate.allow_licensed_export=true" in capsys.readouterr().err
    assert not (tmp_path / "out" / "partial").exists()


def test_export_replays_the_worst_case(artifacts, tmp_path):
    out = tmp_path / "out"
    words = ("evaluate.export=true", "evaluate.allow_licensed_export=true", "evaluate.suite=thin")
    run(command(artifacts, out, *words, "evaluate.curve_clips=0", "evaluate.checks=false"))
    assert not (out / "partial" / "evaluation" / "amr-s0").exists()  # as large as the clips
    model, _ = load_model(artifacts / "train" / "amr-s0" / "best")
    summary = json.loads((out / "evaluation" / "amr-s0.json").read_text())
    assert summary["commit"] == lineage.code()[0]  # what a row of results/ names
    assert re.fullmatch("[0-9a-f]{40}", summary["commit"])
    assert replay(model, out / "evaluation" / "amr-s0_adversarial.arrow") == summary["worst"]
    gallery = read_gallery(out / "evaluation" / "amr-s0_gallery.arrow")
    clean = [row for row in gallery.rows.to_pylist() if row["cell"] == "clean"]
    assert gallery.about["pictures"] and all(row["video"] and row["joints"] for row in clean)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["variant=mmtm"], "python -m pipelines.train"),
        (["data.custom.subjects=[1,2,3]"], "test"),
        (["evaluate.suite=standard", "evaluate.twin=late"], "pipelines.train variant=late"),
    ],
)
def test_bad_settings_end_in_one_line(artifacts, tmp_path, capsys, words, message):
    assert run_stage("evaluate", main, command(artifacts, tmp_path / "out", *words)[3:]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
