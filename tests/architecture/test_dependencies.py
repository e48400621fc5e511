"""Every package that is imported is declared where it is needed, and no other is declared."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYPROJECT = ROOT / "pyproject.toml"
PROJECT = tomllib.loads(PYPROJECT.read_text())["project"]
OWN = {"components", "pipelines", "mlflow_tracking", "benchmarks", "tests"}
# Distribution -> the module that it is imported as, where the names differ.
MODULES = {
    "PyYAML": "yaml",
    "SQLAlchemy": "sqlalchemy",
    "pillow": "PIL",
    "Jinja2": "jinja2",
    "MarkupSafe": "markupsafe",
    "psycopg2-binary": "psycopg2",
    "adversarial-robustness-toolbox": "art",
    "cosmic-ray": "cosmic_ray",
    "decord2": "decord",
    "video-reader-rs": "video_reader",
}
# Declared and not imported by our own code, each for a reason.
NOT_IMPORTED = {
    "dvc": "a command: `dvc repro`, `dvc exp run`",
    "boto3": "MLflow imports it for artifacts in S3",
    "psycopg2-binary": "SQLAlchemy imports it for postgresql:// addresses",
    "pytest-timeout": "a plugin of pytest",
    "pytest-xdist": "a plugin of pytest",
    "ruff": "a command",
    "mypy": "a command",
    "types-PyYAML": "read by mypy",
    "types-requests": "read by mypy",
    "import-linter": "a command: lint-imports",
    "ipykernel": "the kernel that nbclient starts",
    "mkdocs": "a command",
    "mkdocs-material": "a theme of mkdocs, named in mkdocs.yml",
}


def declared(*extras: str) -> set[str]:
    """Names of distributions, without versions and extras of their own."""
    lists = [PROJECT["dependencies"]] if not extras else []
    lists += [PROJECT["optional-dependencies"][extra] for extra in extras]
    return {re.match(r"[\w.-]+", item)[0] for items in lists for item in items}


def imported(*folders: str) -> dict[str, Path]:
    """Third-party modules imported anywhere in these folders, also inside functions."""
    found = {}
    for path in (p for folder in folders for p in sorted((ROOT / folder).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in (name.partition(".")[0] for name in names):
                if name not in sys.stdlib_module_names and name not in OWN:
                    found.setdefault(name, path.relative_to(ROOT))
    return found


def modules(distributions: set[str]) -> set[str]:
    return {MODULES.get(name, name.replace("-", "_")) for name in distributions}


RUN = declared()
EXTRAS = {
    "tests": RUN | declared("dev", "mutation"),
    "benchmarks": RUN | declared("dev", "mutation", "peers"),
    "docs": RUN | declared("docs"),
    "deploy": RUN | declared("s3", "postgres", "dev"),
}


@pytest.mark.parametrize("folder", ["components", "pipelines", "mlflow_tracking", *EXTRAS])
def test_what_is_imported_is_declared(folder: str) -> None:
    known = modules(EXTRAS.get(folder, RUN))
    # A script with an environment of its own has its list beside it.
    for path in (ROOT / folder).rglob("requirements.txt"):
        known |= modules(set(re.findall(r"^[\w.-]+(?===)", path.read_text(), re.M)))
    missing = {name: str(path) for name, path in imported(folder).items() if name not in known}
    assert not missing, f"imported, not declared in pyproject.toml: {missing}"


def test_what_is_declared_is_imported_or_says_why_not() -> None:
    run = modules(RUN - NOT_IMPORTED.keys())
    assert run <= imported("components", "pipelines", "mlflow_tracking").keys()
    extras = declared(*PROJECT["optional-dependencies"]) - RUN
    rest = modules(extras - NOT_IMPORTED.keys())
    assert rest <= imported("tests", "benchmarks", "deploy", "docs").keys()
    assert NOT_IMPORTED.keys() <= RUN | extras, "a reason for what is not declared any more"


def test_each_declaration_gives_its_reason_and_is_pinned() -> None:
    pins = (ROOT / "constraints.txt").read_text().lower().replace("_", "-")
    for name in RUN | declared(*PROJECT["optional-dependencies"]):
        lines = [line for line in PYPROJECT.read_text().splitlines() if f'"{name}' in line]
        assert any("#" in line for line in lines), f"{name} has no line of reason"
        assert re.search(rf"^{re.escape(name.lower().replace('_', '-'))}==", pins, re.M), name
