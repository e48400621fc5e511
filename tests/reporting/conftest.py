"""Artifacts of two small models, as the stages write them, for the report's tests."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from components.attacks import Budget, ThreatModel
from components.batch import Batch
from components.evaluation.curves import curves, standing_grid
from components.evaluation.evaluate import evaluate_model
from components.evaluation.gallery import gallery_of, shown_of, to_file_table
from components.evaluation.piece import write_atomically
from components.evaluation.suite import QUICK
from components.models import build_model

CLASSES = ["drink <water>", "throw", "punch & slap"]
EPS = [0.0, 0.5, 1.0]
MODEL = {
    "rgb": "small_video",
    "skeleton": "small_skeleton",
    "fusion_stages": (),
    "width": 0.25,
    "dropout": 0.0,
    "amr": {"distil": 1.0},
    "num_classes": len(CLASSES),
}


def make_clips(count: int = 12) -> Batch:
    """Noise, with two people everywhere."""
    draw = torch.Generator().manual_seed(3)
    return Batch(
        torch.rand(count, 3, 4, 16, 16, generator=draw),
        torch.randn(count, 3, 8, 25, 2, generator=draw),
        torch.ones(count, 8, 2, dtype=torch.bool),
        torch.arange(count) % len(CLASSES),
        tuple(f"S001C001P{i + 1:03d}R001A001" for i in range(count)),
    )


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Evaluation files as the evaluate stage writes them, for two models."""
    folder = tmp_path_factory.mktemp("measured") / "evaluation"
    folder.mkdir()
    threat = ThreatModel(rgb=Budget("Linf", 8 / 255, 0.0, 1.0), skeleton=Budget("Linf", 0.05))
    clips = make_clips()
    for fusion in ("concat", "amr"):
        torch.manual_seed(1)
        model = build_model({**MODEL, "fusion": fusion}).eval()
        with torch.no_grad():
            label = model(clips.rgb, clips.skeleton, clips.present).logits.argmax(1)
        label[::4] = (label[::4] + 1) % len(CLASSES)  # some clips are wrong on clean input
        batch = clips._replace(label=label)
        found = evaluate_model(model, batch, threat, "thin", name=fusion, classes=CLASSES)
        about = {"recipe": "sample", "variant": fusion, "seed": 0}
        (folder / f"{fusion}-s0.json").write_text(json.dumps({**found.summary, **about}))
        with pa.OSFile(str(folder / f"{fusion}-s0.arrow"), "wb") as out:
            with pa.ipc.new_file(out, found.records.schema) as writer:
                writer.write_table(found.records)
        shown = gallery_of(model, batch, shown_of(QUICK), threat, seed=0)
        write_atomically(folder / f"{fusion}-s0_gallery.arrow", to_file_table(shown))
        grid = standing_grid(model, batch, threat, EPS, seed=0)
        body = curves([grid], batch.size, threat, EPS, {"run": f"{fusion}-s0"})
        (folder / f"{fusion}-s0_curves.json").write_text(json.dumps(body))
    return folder


@pytest.fixture
def artifacts(measured: Path, tmp_path: Path) -> Path:
    """A whole artifacts folder; each test may change its own."""
    folder = tmp_path / "artifacts"
    shutil.copytree(measured, folder / "evaluation")
    for model in ("amr", "concat"):
        train = folder / "train" / f"{model}-s0"
        train.mkdir(parents=True)
        (train / "history.csv").write_text(
            "epoch,loss,val_clean_acc,val_robust_acc_worst\n1,2.5,0.2,0.1\n2,1.5,0.5,0.3\n"
        )
        (train / "metrics.json").write_text('{"epochs": 2}')
    (folder / "tune").mkdir()
    (folder / "tune" / "trials.csv").write_text(
        "number,key,robust_acc,finalist_robust_acc,train.lr\n"
        "0,aa,0.1,,0.01\n1,bb,0.4,0.2,0.00223344\n2,cc,,,0.5\n3,dd,0.5,0.1,0.3\n"
    )
    (folder / "tune" / "tune.json").write_text('{"by_status": {"completed": 4}, "ended": "trials"}')
    (folder / "tune" / "pareto.png").write_bytes(b"picture")
    (folder / "tune" / "best.yaml").write_text("train.lr: 0.002\n")
    (folder / "index.json").write_text(
        json.dumps(
            {
                "source": "ntu", "found": 15, "accepted": 12, "rejected": {"no-skeleton": 3},
                "flags": {"gap": 1}, "protocol": "xsub60", "train": 5, "val": 3, "test": 4,
                "classes": 3,
            }
        )
    )  # fmt: skip
    (folder / "registered.json").write_text(
        json.dumps(
            {
                "variant": "amr", "name": "amr", "version": 2, "alias": "champion",
                "decision": "promoted", "reasons": ["there is no champion yet"],
            }
        )
    )  # fmt: skip
    return folder
