"""Send the project to a running Ray cluster as a job that runs `dvc repro`; follow it to its end.

`make submit RAY_ADDRESS=http://head:8265 [WORKSPACE=/shared/amr]`. The workspace is a folder that
every node of the cluster sees: it keeps data, artifacts and DVC's state from one job to the next,
so that submitting again goes on where the last job stopped. Without one, the project's own folder
is used, which is right when the cluster runs on this machine or mounts this folder.
"""

import argparse
import asyncio
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from components.address import answers, local_path, masked
from components.errors import UserError
from mlflow_tracking.lineage import COMMIT
from pipelines._cluster import EXCLUDES
from pipelines._stage import ROOT

PATIENCE = 180.0  # seconds


def main(argv: list[str] | None = None) -> int:
    """Submit, stream the log, and return the job's exit status (3 when it was stopped)."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.submit", description=__doc__)
    parser.add_argument("address", help="the cluster's dashboard, e.g. http://127.0.0.1:8265")
    parser.add_argument("--workspace", default=str(ROOT), help="folder that every node sees")
    parser.add_argument("targets", nargs="*", help="DVC stages; all when none is named")
    args = parser.parse_intermixed_args(argv)
    try:
        workspace = str(local_path(args.workspace, Path.cwd()).resolve())
        # Ray's own client waits without a limit for a host that swallows what is sent to it.
        if not answers(args.address):
            raise ConnectionError("nobody listens there")
    except UserError as error:
        print(f"submit: {error}", file=sys.stderr)
        return 2
    except ConnectionError as error:
        return _nobody(args.address, error)
    try:
        client = JobSubmissionClient(args.address, headers=token_header())
    except AuthenticationError:
        print(
            f"submit: the cluster at {args.address} asks for its token; put the head's "
            "~/.ray/auth_token into RAY_AUTH_TOKEN, or name its file in RAY_AUTH_TOKEN_PATH",
            file=sys.stderr,
        )
        return 2
    except ConnectionError as error:
        return _nobody(args.address, error)
    entrypoint = in_rays_python(["-m", "pipelines.job", workspace, *args.targets])
    try:
        with tempfile.TemporaryDirectory(prefix="submit-") as folder:
            copied = copy_project(ROOT, Path(folder))
            job = _submit(client, entrypoint, folder, commit(ROOT))
    except RuntimeError as error:
        print(f"submit: the cluster at {args.address} refused the job: {error}", file=sys.stderr)
        return 2
    print(f"sent {copied} files of the project")
    print(f"job {job} on {args.address}; workspace {workspace}", flush=True)
    try:
        asyncio.run(_follow(client, job))
    except KeyboardInterrupt:
        print(f"\nthe job goes on; stop it: ray job stop {job} --address {args.address}")
        return 130
    return _status(client, job)


def _nobody(address: str, error: Exception) -> int:
    print(
        f"submit: no Ray cluster answers at {masked(address)} ({masked(str(error))}); "
        "start one with `ray start --head`, or give RAY_ADDRESS=http://HOST:8265",
        file=sys.stderr,
    )
    return 2


def in_rays_python(words: list[str]) -> str:
    """A shell command that runs `python WORDS` with the interpreter that Ray itself runs in.

    A job's shell has the PATH of whoever started the node: with `.venv/bin/ray start` and nothing
    activated, `python` is the system's. The node's own process names the interpreter it was told
    to start workers with.
    """
    found = (
        'tr "\\0" "\\n" < "/proc/$RAY_RAYLET_PID/cmdline" 2>/dev/null | '
        "sed -n 's/^--python_worker_command=\\([^ ]*\\).*/\\1/p'"
    )
    return f'interpreter="$({found})"; exec "${{interpreter:-python}}" {shlex.join(words)}'


def copy_project(root: Path, folder: Path) -> int:
    """Copy what git tracks, as it lies in the working tree, to `folder`; the number of files.

    So neither results nor raw data behind a link travel, which must not be passed on. Without git
    everything does that `EXCLUDES` does not name.
    """
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, timeout=60)
    if listed.returncode:
        ignore = shutil.ignore_patterns(*(name.lstrip("/") for name in EXCLUDES))
        shutil.copytree(root, folder, symlinks=True, ignore=ignore, dirs_exist_ok=True)
        return sum(1 for path in folder.rglob("*") if path.is_file())
    count = 0
    for name in os.fsdecode(listed.stdout).split("\0"):
        source, target = root / name, folder / name
        if not name or source.is_symlink() or not source.is_file():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
        count += 1
    return count


def commit(root: Path) -> str:
    """The commit that the job's lineage names, marked when the working tree differs from it."""
    words = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=60)
    if done.returncode:
        print("submit: no git commit here, so the job's runs will name none", file=sys.stderr)
    return done.stdout.strip()


def _submit(client: JobSubmissionClient, entrypoint: str, folder: str, revision: str) -> str:
    """The job's id. A cluster that has just started has no agent for some seconds: wait for it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return client.submit_job(
                entrypoint=entrypoint,
                runtime_env={"working_dir": folder, "env_vars": {COMMIT: revision}},
                metadata={"project": "amr-robust-pipeline"},
            )
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise
            print("the cluster is starting; waiting for its job agent", flush=True)
            time.sleep(2)


def token_header() -> dict[str, str]:
    """The cluster's token as Ray looks for it itself; `ray start` asks for it where one exists."""
    token = os.environ.get("RAY_AUTH_TOKEN", "")
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if not token and path.is_file():
        token = path.read_text().strip()
    return {"Authorization": f"Bearer {token}"} if token else {}


async def _follow(client: JobSubmissionClient, job: str) -> None:
    async for lines in client.tail_job_logs(job):
        print(lines, end="", flush=True)


def _status(client: JobSubmissionClient, job: str) -> int:
    info = client.get_job_info(job)
    print(f"job {job}: {info.status.value}" + (f": {info.message}" if info.message else ""))
    if info.status == JobStatus.SUCCEEDED:
        return 0
    if info.status == JobStatus.STOPPED:
        return 3
    return info.driver_exit_code or 1


if __name__ == "__main__":
    sys.exit(main())
