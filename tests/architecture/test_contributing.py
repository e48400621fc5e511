"""What CONTRIBUTING.md says of adding an attack, a fusion, ... is done in a copy, and runs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks._ntu_files import write_video
from tests._support.examples import ROOT, examples

KINDS = {"attack", "fusion", "backbone", "training method", "data set"}
USE = """
import sys
import torch
from components.attacks import ATTACKS, Budget, ThreatModel
from components.batch import Batch
from components.config import load_config, to_dict
from components.evaluation import evaluate_model
from components.evaluation.suite import Entry
from components.models import build_model
from components.sources.ingest import look
from components.sources import get_source
from components.training.methods import method_of
from components.training.state import new_state
from components.training.step import TrainTarget, train_step

words = ["variant=gated", "model.rgb=two_convs", "train.method=random_ball"]
words += ["model.width=0.25", "model.rgb_frames=4", "model.skeleton_frames=8", "data.source=waves"]
config = load_config("params.yaml", words)
torch.manual_seed(0)
model = build_model({**to_dict(config.model), "num_classes": 3})
draw = torch.Generator().manual_seed(1)
clips = Batch(
    torch.rand(6, 3, 4, 16, 16, generator=draw),
    0.3 * torch.randn(6, 3, 8, 25, 2, generator=draw),
    torch.ones(6, 8, 2, dtype=torch.bool),
    torch.arange(6) % 3,
    tuple(f"c{i}" for i in range(6)),
)
threat = ThreatModel(Budget("Linf", 0.1), Budget("Linf", 0.2))
state = new_state(model, lr=0.01, weight_decay=0.0, ema=0.0)
target = TrainTarget(model, model, state.optimizer)
losses = [float(train_step(target, clips, threat, config.train, seed=i).loss) for i in range(30)]
assert losses[-1] < losses[0], losses
assert method_of(config.train.method).craft.__module__.endswith("random_ball")

suite = [Entry("noise", "noise", {"draws": 20}), Entry("pgd", "pgd", {"steps": 10})]
summary = evaluate_model(model, clips, threat, suite, checks=False).summary
assert set(summary["robust_acc"]) == {"noise", "pgd"} and summary["weights"]
try:
    ATTACKS["noise"](model, clips._replace(rgb=clips.rgb * 255), threat, seed=0)
    raise SystemExit("pixels to 255 were taken")
except ValueError as error:
    assert "divide by 255" in str(error)

source = get_source(config.data.source)
found = source.find(__import__("pathlib").Path(sys.argv[1])).clips
assert [look(source, __import__("pathlib").Path(sys.argv[1]), f).reason for f in found] == [""]
print("all five work")
"""


def test_the_guide_has_one_example_of_each_kind() -> None:
    assert set(examples()) == KINDS


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with all five examples added, each by its file and its line."""
    root = tmp_path_factory.mktemp("contribution")
    for name in ("components", "recipes"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    for example in examples().values():
        assert not (root / example.path).exists()
        example.add_to(root)
    (line,) = re.findall(r"`(gated: .*?)`", (ROOT / "CONTRIBUTING.md").read_text())
    with (root / "recipes" / "variants.yaml").open("a") as variants:
        variants.write(f"{line}\n")
    return root


def test_what_was_added_runs(copy: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "wave_p03_02.mp4", 12, 96, 54)
    joints = np.random.default_rng(0).normal(size=(12, 25, 3))
    np.save(tmp_path / "wave_p03_02.npy", joints)
    done = subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path)], cwd=copy, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "all five work" in done.stdout


def test_what_was_added_is_in_the_style_of_the_house(copy: Path) -> None:
    paths = [example.path for example in examples().values()]
    ruff = Path(sys.executable).with_name("ruff")
    for words in (["check"], ["format", "--check"]):
        done = subprocess.run([ruff, *words, *paths], cwd=copy, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_the_hooks_and_the_workflow_call_what_is_there() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entries = [hook["entry"].split() for hook in hooks]
    assert [words[:2] for words in entries] == [
        [".venv/bin/ruff", "format"],
        [".venv/bin/ruff", "check"],
    ]
    assert all(hook["language"] == "system" for hook in hooks)
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    steps = [step.get("run", "") for step in workflow["jobs"]["test"]["steps"]]
    script = (ROOT / ".ci" / "run").read_text()
    assert steps[-1].endswith("bash .ci/run")
    calm = "tests/cluster/test_calm.py"
    assert script.endswith(f"exec make test-cluster CLUSTER={calm}\n") and "\nmake test\n" in script
    assert (ROOT / calm).is_file()
    assert workflow["permissions"] == {"contents": "read"}


def test_a_hook_formats_and_mends(copy: Path) -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    (copy / "untidy.py").write_text("import sys\nimport os\nx = [1,2]\nprint(os, sys)\n")
    for hook in hooks:
        ruff = Path(sys.executable).with_name("ruff")
        words = [str(ruff), *hook["entry"].split()[1:], "untidy.py"]
        assert subprocess.run(words, cwd=copy, capture_output=True).returncode == 0
    tidy = (copy / "untidy.py").read_text()
    assert tidy == "import os\nimport sys\n\nx = [1, 2]\nprint(os, sys)\n"
