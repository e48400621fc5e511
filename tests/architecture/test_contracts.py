"""The structure that the docs promise: import directions, lint, types, sizes, plain names."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("components", "pipelines", "mlflow_tracking", "benchmarks")
SOURCES = sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize(
    "command",
    [
        ["lint-imports", "--no-cache"],
        ["ruff", "check", "--no-cache", "."],
        ["ruff", "format", "--check", "--no-cache", "."],
        ["mypy"],
    ],
    ids=["import-linter", "ruff", "format", "mypy"],
)
def test_tool_is_content(command):
    tool = Path(sys.executable).with_name(command[0])
    done = subprocess.run([tool, *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_file_is_small_and_says_its_place(path):
    text = path.read_text()
    assert text.count("\n") <= 300, "over 300 lines: does it still have one job?"
    assert ast.get_docstring(ast.parse(text)), "no module docstring"


def test_ray_is_imported_in_few_files():
    users = [str(p.relative_to(ROOT)) for p in SOURCES if _imports(p, "ray")]
    inside = [u for u in users if u.startswith("components/")]
    assert inside == ["components/training/worker.py"], users
    assert len(users) <= 12, users  # one of them for a single private name


def test_nothing_unpickles():
    forbidden = {("torch", "load"), ("pickle", "load"), ("pickle", "loads"), ("joblib", "load")}
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner = node.func.value
            if not isinstance(owner, ast.Name) or (owner.id, node.func.attr) not in forbidden:
                continue
            safe = any(
                k.arg == "weights_only" and isinstance(k.value, ast.Constant) and k.value.value
                for k in node.keywords
            )
            if not safe:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found


def test_no_test_folder_is_a_package():
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_test_modules_have_unique_names():
    names = [p.name for p in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names)), sorted(n for n in names if names.count(n) > 1)


def _imports(path: Path, package: str) -> bool:
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        if any(name.split(".")[0] == package for name in names):
            return True
    return False
