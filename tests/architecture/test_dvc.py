"""`dvc.yaml` names real modules, and a change of any file makes the right stages stale."""

import ast
import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components.config import load_config, to_dict
from components.config.load import valid_keys
from components.config.recipes import read_variants
from components.fingerprint import deciding_files

ROOT = Path(__file__).parents[2]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
ORDER = ["index", "shard", "tune", "train", "evaluate", "register", "report"]
# Settings that decide no result: where things lie, how the work is spread, where it is logged.
WHERE = {"recipe", "variant", "seeds", "compare", "paths", "sample", "tracking", "ray", "shard"}
# The writers of shards decide what lies in them, which the stages behind see as their input.
SHARDS = ("components/shards/",)
# These start, lock, name, show or refuse something; what they let through is the same.
PLAIN = (
    "components/address.py",
    "components/cpus.py",
    "components/errors.py",
    "components/files.py",
    "components/fingerprint.py",
    "components/progress_bar.py",
    "components/timeouts.py",
    "components/units.py",
)


def test_the_stages_are_those_of_the_design():
    assert list(STAGES) == ORDER


@pytest.mark.parametrize("name", ORDER)
def test_stage_runs_its_module_and_depends_on_it(name):
    assert STAGES[name]["cmd"].split()[:3] == ["python", "-m", f"pipelines.{name}"]
    assert f"pipelines/{name}.py" in STAGES[name]["deps"]


@pytest.mark.parametrize("name", ORDER)
def test_parameters_exist(name):
    names = [p for p in STAGES[name]["params"] if isinstance(p, str)]
    assert not set(names) - set(valid_keys())


def test_every_section_that_decides_a_result_is_a_parameter_of_its_stages():
    listed = {name: {p for p in STAGES[name]["params"] if isinstance(p, str)} for name in ORDER}
    assert "paths.data_uri" in listed["index"]  # an object store is no file that DVC could look at
    assert {"data", "model", "threat", "train"} <= listed["train"] & listed["tune"]
    assert {"data", "threat", "evaluate"} <= listed["evaluate"]
    assert {"data", "index"} <= listed["index"]
    everywhere = set().union(*listed.values()) | WHERE
    assert not set(to_dict(load_config(ROOT / "params.yaml"))) - everywhere
    where_only = {"uri", "cache_gb"}
    shard = {key.removeprefix("shard.") for key in listed["shard"]}
    assert set(to_dict(load_config(ROOT / "params.yaml").shard)) <= shard | where_only


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """A copy of the project in which every stage counts as done, with stand-ins for its outputs."""
    folder = tmp_path_factory.mktemp("dvc")
    for name in ("components", "pipelines", "mlflow_tracking", "recipes"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    values = yaml.safe_load((folder / "params.yaml").read_text()) | {"compare": ["amr", "late"]}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    config = load_config(folder / "params.yaml")
    (folder / config.paths.data).mkdir(parents=True)
    (folder / config.paths.data / "clip").write_text("raw")
    items = [{"item.variant": v, "item.seed": s} for v in config.compare for s in config.seeds]
    for stage in STAGES.values():
        for out in _outs(stage):
            for item in items:
                path = out.replace("${paths.artifacts}", config.paths.artifacts)
                for key, value in item.items():
                    path = path.replace("${" + key + "}", str(value))
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(path)
    for words in (["init", "-q", "--no-scm"], ["commit", "-q", "-f"]):
        command = [Path(sys.executable).with_name("dvc"), *words]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    # DVC looks for outputs in the working folder first, where a user's own artifacts may lie.
    with contextlib.chdir(folder):
        yield folder


def _outs(stage):
    for kind in ("outs", "metrics", "plots"):
        for item in stage.get(kind, []):
            yield item if isinstance(item, str) else next(iter(item))


def _stale(folder: Path) -> set[str]:
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        return {_stage(name) for name in repo.status()}


def _stage(name: str) -> str:
    """`../dvc.yaml:train@sample-amr-0` -> `train`."""
    return name.rpartition(":")[2].partition("@")[0]


def test_nothing_is_stale_when_nothing_changed(committed):
    assert _stale(committed) == set()


TARGETS = ("shard@sample", "tune@sample", "train@sample-amr-0")


def test_each_file_that_decides_a_result_makes_its_stages_stale(committed):
    from dvc.repo import Repo

    wrong = {}
    # One repository for all changes: to open it and to read dvc.yaml costs more than a look.
    with Repo(str(committed)) as repo, repo.lock:
        stages = [repo.stage.load_one(name=name) for name in TARGETS]
        assert not any(stage.changed_deps() for stage in stages)
        for file in deciding_files():
            relative = str(file.relative_to(ROOT))
            if relative in PLAIN or relative.startswith("components/search"):
                continue
            expected = {"shard"} if relative.startswith(SHARDS) else {"tune", "train"}
            path = committed / relative
            before = path.read_bytes()
            path.write_bytes(before + b"\n# changed\n")
            stale = {_stage(stage.addressing) for stage in stages if stage.changed_deps()}
            path.write_bytes(before)
            if not expected <= stale:
                wrong[relative] = stale
    assert not wrong


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("components/ntu/skeleton.py", {"index", "shard"}),
        ("components/sources/ingest.py", {"index", "shard"}),
        ("components/reporting/table.py", {"report"}),
        ("components/search/space.py", {"tune"}),
        ("components/attacks/pgd.py", {"tune", "train", "evaluate"}),
        ("mlflow_tracking/registry.py", {"register"}),
        ("pipelines/evaluate.py", {"evaluate"}),
        ("pipelines/sync.py", set()),
    ],
)
def test_a_change_makes_stale_what_it_decides_and_nothing_else(committed, file, stages):
    path = committed / file
    before = path.read_bytes()
    path.write_bytes(before + b"\n# changed\n")
    try:
        assert _stale(committed) == stages
    finally:
        path.write_bytes(before)


def test_a_variant_makes_only_its_own_runs_stale(committed):
    from dvc.repo import Repo

    path = committed / "recipes" / "variants.yaml"
    before = path.read_text()
    table = {**read_variants(committed / "recipes"), "late": {"model.fusion": "concat"}}
    path.write_text(yaml.safe_dump(table))
    try:
        with Repo(str(committed)) as repo:
            stale = {name.rpartition(":")[2] for name in repo.status()}
        assert stale == {"train@sample-late-0"}
    finally:
        path.write_text(before)


@pytest.mark.parametrize("name", ["tune", "train", "evaluate"])
def test_code_that_a_stage_imports_is_a_dependency_of_it(name):
    listed = tuple(d for d in STAGES[name]["deps"] if d.startswith(("components", "pipelines")))
    deciding = set(deciding_files())
    for path in _reached(ROOT / "pipelines" / f"{name}.py") & deciding:
        relative = str(path.relative_to(ROOT))
        if relative in PLAIN or relative.startswith((*SHARDS, "components/search")):
            continue
        assert any(relative == d or relative.startswith(d + "/") for d in listed), relative


def _reached(start: Path) -> set[Path]:
    """All files of the project that `start` imports, directly or not."""
    seen, queue = set(), [start]
    while queue:
        path = queue.pop()
        # The check of names and the logging reach everything, and decide nothing.
        if path in seen or path.name == "_stage.py" or "mlflow_tracking" in path.parts:
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
