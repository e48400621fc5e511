"""The cluster's side of `make submit`: bring the workspace up to date, run `dvc repro` there."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import yaml

from components.address import local_path
from components.files import try_lock

# What a workspace owns: never replaced by what a job brings along.
KEPT = {"data", "artifacts", "mlartifacts", "mlflow.db", ".dvc", ".git", ".venv", "dvc.lock"}
INIT_SECONDS = 120.0


def main(argv: list[str]) -> int:
    """`python -m pipelines.job WORKSPACE [STAGE ...]`, in the folder that Ray unpacked."""
    workspace, package = Path(argv[0]), Path.cwd().resolve()
    if not workspace.is_absolute():
        # Ray's temporary folder, which goes with the job, is where a relative path would lead.
        print(f"job: the workspace {workspace} must be an absolute path", file=sys.stderr)
        return 2
    if workspace.is_dir() and not is_ours(workspace):
        print(
            f"job: {workspace} holds files of something else, which a workspace would replace; "
            "name an empty folder, or one that an earlier job has used",
            file=sys.stderr,
        )
        return 2
    # Held until the process ends. Another job would get its code replaced while it runs.
    lock = try_lock(workspace / "artifacts" / ".locks" / "job.lock")
    if lock is None:
        print(
            f"job: another job is at work in {workspace}; wait for it (`ray job list`), or name "
            "another workspace",
            file=sys.stderr,
        )
        return 2
    if workspace.resolve() != package and not (workspace / ".git").exists():
        refresh(package, workspace)
    forget_lost_dvc(workspace)
    make_data_folder(workspace)
    # The interpreter's own folder first: stages call `python` and must find this one.
    path = str(Path(sys.executable).parent) + os.pathsep + os.environ.get("PATH", "")
    command = [sys.executable, "-m", "dvc", "repro", *argv[1:]]
    print(f"{workspace}: dvc repro {' '.join(argv[1:])}", flush=True)
    return subprocess.run(command, cwd=workspace, env=os.environ | {"PATH": path}).returncode


def is_ours(workspace: Path) -> bool:
    """Whether a job may replace the code in this folder."""
    there = {path.name for path in workspace.iterdir()}
    return there <= KEPT or {"dvc.yaml", "pipelines"} <= there


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
        subprocess.run(command, cwd=workspace, check=True, timeout=INIT_SECONDS)


def make_data_folder(workspace: Path) -> None:
    """An empty one, which DVC wants to see, where raw files lie in an object store."""
    params = workspace / "params.yaml"
    paths = yaml.safe_load(params.read_text())["paths"] if params.is_file() else {}
    if paths.get("data_uri"):
        local_path(paths["data"], workspace).mkdir(parents=True, exist_ok=True)


def forget_lost_dvc(workspace: Path) -> None:
    """Remove DVC's note of who reads and writes what, when nobody of them runs any more.

    After a lost head DVC looks whether a process of that number exists. On the head's successor
    it often does, and is another one: every further job would end with "is busy".
    """
    path = workspace / ".dvc" / "tmp" / "rwlock"
    if not path.is_file():
        return
    try:
        noted = json.loads(path.read_text())
        holders = [*noted.get("write", {}).values()]
        holders += [holder for some in noted.get("read", {}).values() for holder in some]
        runs = any(_runs_dvc(int(holder["pid"])) for holder in holders)
    except ValueError:
        runs = False  # cut off with the head that wrote it; DVC would refuse it
    if not runs:
        path.unlink()


def _runs_dvc(pid: int) -> bool:
    try:
        return "dvc" in " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
