"""The notebook and the script of docs/ run as they stand, on a tiny sample and a small model."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient

from components.attacks import Budget, ThreatModel
from components.checkpoint import load_model, save_checkpoint
from components.config import Config
from components.datasets import ClipDataset, select_split
from components.shards import ShardSet
from components.training.step import TrainTarget, train_step
from tests._support.cli import Project, finished_project

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"
SCRIPT = ROOT / "docs" / "own_fusion.py"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A sample with a model that was adversarially trained for a few seconds."""
    made = finished_project(tmp_path_factory.mktemp("project"))
    shards, section = ShardSet.open(made.artifacts / "shards"), made.config.model
    split = select_split(shards, made.config.data)
    model, about = load_model(made.checkpoint)
    train = ClipDataset(
        shards,
        split.train,
        split.classes,
        rgb_frames=section.rgb_frames,
        rgb_size=section.rgb_size,
        skeleton_frames=section.skeleton_frames,
    )
    threat = ThreatModel(rgb=Budget("Linf", 8 / 255), skeleton=Budget("Linf", 0.05))
    target = TrainTarget(model.train(), model, torch.optim.AdamW(model.parameters(), lr=3e-3))
    for epoch in range(4):
        for rows in torch.arange(len(train)).split(16):
            train_step(target, train.batch(rows.tolist()), threat, Config().train, seed=epoch)
    save_checkpoint(made.checkpoint, model.eval(), about)
    return made


def test_the_notebook_runs_from_top_to_bottom(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMR_CHECKPOINT", str(project.checkpoint))
    monkeypatch.setenv("AMR_SHARDS", str(project.artifacts / "shards"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    told = "\n".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ())
    )
    assert re.search(
        r"rgb +right on \d+ of \d+; pixels moved by up to 8\.0/255, joints .* 0\.0 cm", told
    )
    assert re.search(r"skeleton +right on .* 0\.0/255, joints by up to 5\.0 cm", told)
    assert re.search(r"both +mean weight of the video 0\.\d+", told)
    assert len(re.findall(r"^(?:amr|own): clean \d+ %, rgb \d+ %, .*both \d+ %", told, re.M)) == 2
    pictures = [
        o for c in notebook.cells for o in c.get("outputs", ()) if "image/png" in o.get("data", {})
    ]
    assert len(pictures) == 1 and "gallery-data" in (tmp_path / "quickstart.html").read_text()


def test_the_notebook_is_kept_without_outputs() -> None:
    """They would change at each run, and nobody reviews them."""
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert all(not c.outputs and c.execution_count is None for c in cells if c.cell_type == "code")


def test_the_script_trains_a_fusion_of_its_own(project: Project) -> None:
    assert len(SCRIPT.read_text().splitlines()) <= 40
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(project.artifacts / "shards"), "3"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    losses = [float(loss) for loss in re.findall(r"epoch \d: loss ([\d.]+)", done.stdout)]
    assert len(losses) == 3 and losses[-1] < losses[0]
    assert re.search(r"^clean [\d.]+ worst \{'value': [\d.]+, 'low'", done.stdout, re.M)
