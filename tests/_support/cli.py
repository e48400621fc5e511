"""The command line as a user has it: a process of its own, on a small finished project."""

import json
import os
import pty
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from components.attacks import Budget, ThreatModel
from components.checkpoint import load_model, save_checkpoint
from components.config import Config, apply_overrides, to_dict
from components.datasets import ClipDataset, select_split
from components.evaluation.evaluate import evaluate_model
from components.models import build_model
from components.ntu.crop import MARGIN
from components.sample.generate import write_sample
from components.sample.plan import Style
from components.shards import ShardSet
from components.shards.sealing import seal
from components.shards.storage import open_store
from components.shards.writer import plan_shards, write_shard
from components.sources import get_source
from components.sources.ingest import look

ROOT = Path(__file__).parents[2]
SETTINGS: dict[str, Any] = {
    "shard.frames": 4,
    "shard.size": 24,
    "model.rgb_frames": 4,
    "model.rgb_size": 16,
    "model.skeleton_frames": 8,
    "model.width": 0.25,
    "evaluate.suite": "thin",
}


def amr(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """`amr WORDS` as a process, with these variables besides its environment."""
    return subprocess.run(
        [sys.executable, "-m", "pipelines", *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | environment, timeout=300,
    )  # fmt: skip


def in_terminal(command: list[str], typed: str = "", **environment: str) -> str:
    """What a terminal shows of a command and of what is typed into it."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env=os.environ | {"TERM": "xterm"} | environment,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, typed.encode())
    shown = b""
    try:
        while block := os.read(ours, 4096):
            shown += block
    except OSError:  # how Linux says that nobody has the other end any more
        assert process.wait(60) is not None
    finally:
        os.close(ours)
    return shown.decode(errors="replace")


def write_clips(folder: Path) -> Path:
    """A small sample with all planted faults, as `amr sample` writes it."""
    style = Style(seed=0, width=96, height=64, frames=(24, 30), skeleton_noise=0.01, subjects=4)
    write_sample(folder, style, 4, workers=1)
    return folder


def heeds_ctrl_c() -> None:
    """As in a terminal: what a shell starts in the background ignores SIGINT, and so would this."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Project:
    """A project in which one run is trained and evaluated."""

    data: Path
    artifacts: Path
    config: Config

    @property
    def words(self) -> list[str]:
        """Its settings as overrides."""
        paths = [f"paths.data={self.data}", f"paths.artifacts={self.artifacts}"]
        return [*paths, *(f"{key}={json.dumps(value)}" for key, value in SETTINGS.items())]

    @property
    def checkpoint(self) -> Path:
        """Of the run `amr-s0`."""
        return self.artifacts / "train" / "amr-s0" / "best"

    def test_clips(self) -> ClipDataset:
        """The test split, as the evaluation reads it."""
        shards = ShardSet.open(self.artifacts / "shards")
        split = select_split(shards, self.config.data)
        return ClipDataset.for_model(shards, split.test, split.classes, to_dict(self.config.model))


def finished_project(root: Path) -> Project:
    """Sample, shards of all clips that are usable, an untrained model and its real evaluation."""
    data, artifacts = write_clips(root / "data"), root / "artifacts"
    config = apply_overrides(Config(), SETTINGS)
    source = get_source("ntu")
    usable = [f for f in source.find(data).clips if not look(source, data, f).reason]
    section = config.shard
    settings = {
        "source": source.name, "unit": source.unit, "codec": section.codec, "jpeg_quality": 0,
        "frames": section.frames, "size": section.size, "margin": MARGIN,
    }  # fmt: skip
    where = str(artifacts / "shards")
    plans = plan_shards(
        [(found, 0, "") for found in usable],
        clips_per_shard=64, root=str(data), where=where, settings=settings,
    )  # fmt: skip
    seal(open_store(where, create=True), [write_shard(plan) for plan in plans], settings)
    project = Project(data, artifacts, config)
    classes = select_split(ShardSet.open(where), config.data).classes
    torch.manual_seed(0)
    spec = to_dict(config.model)
    model = build_model({**spec, "num_classes": len(classes)})
    about: dict[str, Any] = {"model": spec, "num_classes": len(classes), "classes": classes}
    about["train"] = {"method": "natural"}
    save_checkpoint(project.checkpoint, model, about)
    _evaluate(project)
    return project


def _evaluate(project: Project) -> None:
    held_out = project.test_clips()
    model, about = load_model(project.checkpoint)
    threat = ThreatModel(
        rgb=Budget("Linf", project.config.threat.rgb.eps),
        skeleton=Budget("Linf", project.config.threat.skeleton.eps),
    )
    batch = held_out.batch(range(len(held_out)))
    found = evaluate_model(model, batch, threat, "thin", name="amr-s0", classes=held_out.classes)
    body = {**found.summary, "variant": "amr", "seed": 0, "suite": "thin"}
    body["checkpoint_sha256"] = about["weights_sha256"]
    folder = project.artifacts / "evaluation"
    folder.mkdir(exist_ok=True)
    (folder / "amr-s0.json").write_text(json.dumps(body))
