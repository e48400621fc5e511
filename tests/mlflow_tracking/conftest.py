"""A small finished project: sample clips, shards, a model, its evaluation by the real suite."""

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pytest
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
from mlflow_tracking.store import ROOT

SETTINGS = {
    "shard.frames": 4,
    "shard.size": 24,
    "model.rgb_frames": 4,
    "model.rgb_size": 16,
    "model.skeleton_frames": 8,
    "model.width": 0.25,
    "evaluate.suite": "thin",
    "tracking.system_metrics": False,
}


@dataclass(frozen=True)
class Project:
    """Folders and settings of one project."""

    data: Path
    artifacts: Path
    config: Config
    uri: str

    @property
    def words(self) -> list[str]:
        """The settings as overrides of a stage's command line."""
        paths = [f"paths.data={self.data}", f"paths.artifacts={self.artifacts}"]
        return [*paths, *(f"{key}={json.dumps(value)}" for key, value in SETTINGS.items())]


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes to the project's own runs."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.delenv("DVC_STAGE", raising=False)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's files, made once."""
    root = tmp_path_factory.mktemp("project")
    config = apply_overrides(Config(), SETTINGS)
    style = Style(seed=0, width=96, height=64, frames=(8, 10), skeleton_noise=0.01, subjects=4)
    write_sample(root / "data", style, 4, dirty=False, workers=1)
    source = get_source("ntu")
    clips = [(found, 0, "") for found in source.find(root / "data").clips]
    section = config.shard
    settings = {
        "source": source.name, "unit": source.unit, "codec": section.codec, "jpeg_quality": 0,
        "frames": section.frames, "size": section.size, "margin": MARGIN,
    }  # fmt: skip
    where = str(root / "artifacts" / "shards")
    plans = plan_shards(
        clips, clips_per_shard=32, root=str(root / "data"), where=where, settings=settings
    )
    seal(open_store(where, create=True), [write_shard(plan) for plan in plans], settings)
    shards = ShardSet.open(where)
    split = select_split(shards, config.data)
    torch.manual_seed(0)
    spec = to_dict(config.model)
    model = build_model({**spec, "num_classes": len(split.classes)})
    about = {"model": spec, "num_classes": len(split.classes), "classes": split.classes}
    save_checkpoint(root / "artifacts" / "train" / "amr-s0" / "best", model, about)
    validation = {"robust_acc": {"worst": 0.5}, "clean_acc": 0.6}
    (root / "artifacts" / "train" / "amr-s0" / "metrics.json").write_text(json.dumps(validation))
    evaluate(root / "artifacts", config, "amr-s0")
    return root


def held_out(artifacts: Path, config: Config) -> ClipDataset:
    """The test clips as the evaluation reads them."""
    shards = ShardSet.open(artifacts / "shards")
    split = select_split(shards, config.data)
    return ClipDataset.for_model(shards, split.test, split.classes, to_dict(config.model))


def evaluate(artifacts: Path, config: Config, name: str) -> None:
    """Evaluate `train/<name>/best` on the test split with the thin suite."""
    data = held_out(artifacts, config)
    model, about = load_model(artifacts / "train" / name / "best")
    threat = ThreatModel(
        rgb=Budget("Linf", config.threat.rgb.eps),
        skeleton=Budget("Linf", config.threat.skeleton.eps),
    )
    batch = data.batch(range(len(data)))
    found = evaluate_model(model, batch, threat, "thin", name=name, classes=data.classes)
    summary, table = found.summary, found.records
    body = {**summary, "variant": "amr", "seed": 0}
    # The project's dozen test clips are too few for the checks of masked gradients, and the gate
    # promotes nothing they cannot judge (test_gate.py). What is tested here comes after that.
    for flag in body["flags"]:
        flag["status"] = "pass" if flag["status"] == "too-few" else flag["status"]
    body["checkpoint_sha256"] = about["weights_sha256"]
    folder = artifacts / "evaluation"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(body))
    with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as sink:
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Project:
    """A copy of the finished project with a sqlite store of its own."""
    artifacts = tmp_path / "artifacts"
    shutil.copytree(template / "artifacts", artifacts)
    values = {**SETTINGS, "paths.data": str(template / "data"), "paths.artifacts": str(artifacts)}
    config = apply_overrides(Config(), values)
    return Project(template / "data", artifacts, config, os.environ["MLFLOW_TRACKING_URI"])


@pytest.fixture(scope="session")
def servers() -> Iterator[ModuleType]:
    """The module that starts PostgreSQL, the S3 store and the tracking server."""
    spec = importlib.util.spec_from_file_location(
        "deploy_mlflow_server", ROOT / "deploy" / "mlflow" / "server.py"
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module


@pytest.fixture
def evaluate_again() -> Callable[[Path, Config, str], None]:
    """`evaluate`, for tests that change a model."""
    return evaluate


@pytest.fixture
def open_test_split() -> Callable[[Project], ClipDataset]:
    """The test split of a project."""
    return lambda project: held_out(project.artifacts, project.config)


@pytest.fixture
def free_port(servers: ModuleType) -> int:
    """A port that nobody listens on."""
    port: int = servers.free_port()
    return port
