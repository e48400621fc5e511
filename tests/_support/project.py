"""A copy of the project as a clone has it, with settings that make it small."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CODE = (
    "components", "pipelines", "mlflow_tracking", "recipes", "dvc.yaml", "data.dvc", "Makefile",
    "params.yaml", "pyproject.toml", "constraints.txt", ".dvcignore", ".gitignore",
)  # fmt: skip


def copy_project(
    folder: Path, compare: list[str], *settings: Mapping[str, Mapping[str, Any]]
) -> Path:
    """The project in `folder`, with these sections of params.yaml changed, later ones first."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in CODE:
        source = ROOT / name
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, ignore=ignore)
        else:
            shutil.copy2(source, folder / name)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["compare"] = compare
    for changes in settings:
        for section, values in changes.items():
            params[section].update(values)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def commit(folder: Path) -> None:
    """Everything that git does not ignore, as one commit."""
    me = ["-c", "user.name=t", "-c", "user.email=t@t.invalid"]
    for words in (["add", "-A"], [*me, "commit", "-qm", "start"]):
        subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)
