"""What a submission takes along, and what it says before anything travels."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import submit
from pipelines.submit import commit, copy_project, in_rays_python


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with raw data behind a link, results beside it, and odd names."""
    raw, root = tmp_path / "raw", tmp_path / "project"
    raw.mkdir()
    (raw / "S001C001P001R001A001.skeleton").write_text("not to be passed on")
    (root / "artifacts-eps2").mkdir(parents=True)
    (root / "artifacts-eps2" / "big").write_bytes(bytes(1000))
    (root / "ntu").symlink_to(raw)
    (root / "data").symlink_to(raw)
    (root / "a b").mkdir()
    (root / "a b" / "n\u00e4me #1?.py").write_text("first")
    (root / "run.sh").write_text("#!/bin/sh")
    (root / "run.sh").chmod(0o755)
    (root / "gone.py").write_text("deleted from the working tree")
    (root / ".gitignore").write_text("artifacts-eps2/\n")
    for words in (
        ["init", "-q"],
        ["add", "a b", "run.sh", "gone.py", ".gitignore", "data"],
        ["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "first"],
    ):
        subprocess.run(["git", *words], cwd=root, check=True)
    (root / "gone.py").unlink()
    return root


def test_what_git_tracks_travels_as_it_lies_there_and_nothing_else(
    project: Path, tmp_path: Path
) -> None:
    (project / "a b" / "n\u00e4me #1?.py").write_text("changed, not yet committed")
    package = tmp_path / "package"
    package.mkdir()
    assert copy_project(project, package) == 3
    files = sorted(str(p.relative_to(package)) for p in package.rglob("*") if not p.is_dir())
    assert files == [".gitignore", "a b/n\u00e4me #1?.py", "run.sh"]
    assert (package / "a b" / "n\u00e4me #1?.py").read_text() == "changed, not yet committed"
    assert (package / "run.sh").stat().st_mode & 0o100


def test_without_git_raw_data_behind_links_stay(project: Path, tmp_path: Path) -> None:
    subprocess.run(["rm", "-rf", ".git"], cwd=project, check=True)
    package = tmp_path / "package"
    package.mkdir()
    copy_project(project, package)
    assert (package / "ntu").is_symlink() and not (package / "data").exists()


def test_the_commit_travels_marked_when_files_differ(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commit(project).endswith("-dirty")
    subprocess.run(["git", "checkout", "-q", "--", "."], cwd=project, check=True)
    assert len(commit(project)) == 40
    assert commit(tmp_path) == "" and "no git commit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workspace", "s3://KEY:secret@bucket/x"], "is an address, expected a folder"),
        (["--workspace", ""], "empty path"),
        ([], "no Ray cluster answers at http://***@127.0.0.1"),
    ],
)
def test_a_wrong_address_or_workspace_ends_in_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begun = time.monotonic()
    assert submit.main([f"http://me:secret@127.0.0.1:{port}", *words]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1 and "secret" not in told
    assert time.monotonic() - begun < 30


def test_the_job_runs_in_the_interpreter_that_the_node_was_started_with(tmp_path: Path) -> None:
    node = subprocess.Popen(
        [sys.executable, "-c", "input()", f"--python_worker_command={sys.executable} worker.py"],
        stdin=subprocess.PIPE,
    )
    try:
        command = in_rays_python(["-c", "import sys; print(sys.executable)"])
        done = subprocess.run(
            ["sh", "-c", command],
            env={"RAY_RAYLET_PID": str(node.pid), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        node.communicate(b"\n", timeout=60)
    assert done.stdout.strip() == sys.executable
