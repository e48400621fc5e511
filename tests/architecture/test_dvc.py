"""`dvc.yaml` names real modules, lists what each stage depends on, and no more."""

import ast
import re
from pathlib import Path

import pytest
import yaml

from components.config import flatten, load_config
from components.config.load import valid_keys

ROOT = Path(__file__).parents[2]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# Decides no result: how the work is spread, where it is logged, what the matrix sets itself.
NO_OUTCOME = {
    "model.fusion",
    "train.models",
    "train.keep_every",
    "evaluate.workers",
    "shard.workers",
    "shard.threads",
    "shard.clip_seconds",
    "shard.cache_gb",
    "tune.concurrent",
    "tune.max_failures",
    "index.workers",
}
# Code that starts, logs or draws, and the settings' own types.
NO_OUTCOME_CODE = (
    "components/__init__.py",
    "components/config",
    "components/batch.py",
    "components/seeds.py",
    "components/checkpoint.py",
    "components/errors.py",
    "components/shards",
    "components/sources",
    "components/ntu",
    "components/sample",
    "components/reporting",
    "mlflow_tracking",
    "pipelines/__init__.py",
    "pipelines/_",
)
# Reached only through the code that logs and serves: it prepares inputs, and decides no figure.
ONLY_HERE = {"register": ("components/datasets",), "report": ("components/datasets",)}


def test_the_stages_are_those_of_the_design():
    assert list(STAGES) == ["index", "shard", "tune", "train", "evaluate", "register", "report"]


@pytest.mark.parametrize("name", STAGES)
def test_stage_runs_its_module_and_depends_on_it(name):
    assert STAGES[name]["cmd"].split()[:3] == ["python", "-m", f"pipelines.{name}"]
    assert f"pipelines/{name}.py" in STAGES[name]["deps"]
    assert (ROOT / "pipelines" / f"{name}.py").is_file()


@pytest.mark.parametrize("name", STAGES)
def test_dependencies_and_parameters_exist(name):
    outs = {_plain(o) for stage in STAGES.values() for o in _outs(stage)}
    for dep in STAGES[name]["deps"]:
        made = any(_plain(dep) == o or o.startswith(_plain(dep) + "/") for o in outs)
        assert made or dep == "data" or (ROOT / dep).exists(), dep
    unknown = set(STAGES[name]["params"]) - set(valid_keys())
    assert not unknown


@pytest.mark.parametrize(
    ("name", "sections"),
    [
        ("shard", ["shard"]),
        ("tune", ["tune", "threat"]),
        ("train", ["model", "train", "threat"]),
        ("evaluate", ["evaluate", "threat"]),
    ],
)
def test_every_parameter_that_decides_a_result_is_listed(name, sections):
    listed = set(STAGES[name]["params"])
    for key in flatten(load_config(ROOT / "params.yaml")):
        if key.split(".")[0] not in sections or key in NO_OUTCOME:
            continue
        prefixes = {key[: m.start()] for m in re.finditer(r"\.", key)} | {key}
        assert prefixes & listed, f"{name} does not list {key}"


@pytest.mark.parametrize("name", STAGES)
def test_code_that_decides_a_result_is_listed(name):
    listed = tuple(d.rstrip("/") for d in STAGES[name]["deps"])
    for path in _reached(ROOT / "pipelines" / f"{name}.py"):
        relative = str(path.relative_to(ROOT))
        if relative.startswith(NO_OUTCOME_CODE + ONLY_HERE.get(name, ())):
            continue
        assert any(relative == d or relative.startswith(d + "/") for d in listed), relative


def _outs(stage):
    for kind in ("outs", "metrics", "plots"):
        for item in stage.get(kind, []):
            yield item if isinstance(item, str) else next(iter(item))


def _plain(path):
    return re.sub(r"\$\{[^}]*\}", "*", path)


def _reached(start: Path) -> set[Path]:
    """All files of the project that `start` imports, directly or not."""
    seen, queue = set(), [start]
    while queue:
        path = queue.pop()
        if path in seen:
            continue
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
            elif isinstance(node, ast.Import):
                names = [a.name for a in node.names]
            for name in names:
                file = ROOT / (name.replace(".", "/") + ".py")
                queue += [f for f in (file, file.with_suffix("") / "__init__.py") if f.is_file()]
    return seen
