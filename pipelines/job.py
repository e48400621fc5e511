"""The cluster's side of `make submit`: bring the workspace up to date, run `dvc repro` there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

# What a workspace owns: never replaced by what a job brings along.
KEPT = {"data", "artifacts", "mlartifacts", "mlflow.db", ".dvc", ".git", ".venv", "dvc.lock"}


def main(argv: list[str]) -> int:
    """`python -m pipelines.job WORKSPACE [STAGE ...]`, in the folder that Ray unpacked."""
    workspace, package = Path(argv[0]).absolute(), Path.cwd().resolve()
    if workspace.resolve() != package and not (workspace / ".git").exists():
        refresh(package, workspace)
    # The interpreter's own folder first: stages call `python` and must find this one.
    path = str(Path(sys.executable).parent) + os.pathsep + os.environ.get("PATH", "")
    command = [sys.executable, "-m", "dvc", "repro", *argv[1:]]
    print(f"{workspace}: dvc repro {' '.join(argv[1:])}", flush=True)
    return subprocess.run(command, cwd=workspace, env=os.environ | {"PATH": path}).returncode


def refresh(package: Path, workspace: Path) -> None:
    """Make the workspace's code equal to the package's; data, results and DVC state stay.

    `data.dvc` is kept when the workspace has one, because there it describes the real data.
    """
    workspace.mkdir(parents=True, exist_ok=True)
    for source in package.iterdir():
        target = workspace / source.name
        if source.name in KEPT or (source.name == "data.dvc" and target.exists()):
            continue
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target)
        else:
            shutil.copy2(source, target)
    if not (workspace / ".dvc").exists():
        # A workspace is no git checkout, and DVC must be told so.
        command = [sys.executable, "-m", "dvc", "init", "--no-scm", "-q"]
        subprocess.run(command, cwd=workspace, check=True, timeout=120)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
